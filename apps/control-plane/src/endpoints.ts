import { Injectable } from '@nestjs/common';

/** Where this process listens, known once it does. Each listener writes its own; the ready file and the join tokens read them. */
@Injectable()
export class Endpoints {
  /** For example `http://127.0.0.1:7080`. */
  httpUrl: string | undefined;
  /** For example `https://127.0.0.1:7443`. */
  deviceUrl: string | undefined;
  /** This process stops: a balancer must not send anything new. */
  draining = false;
}

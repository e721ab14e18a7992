import type { GroupWeather, VirtualDevice } from '../device/virtual-device.js';
import { FaultyNetwork } from './proxy.js';
import type { Fault } from './script.js';

const FINE: GroupWeather = { messages: { duplicate: 0, reorder: 0 }, skewMs: 0 };

/** Devices that share one network and its faults. */
export class Group {
  readonly devices: VirtualDevice[] = [];
  weather: GroupWeather = FINE;
  private network: FaultyNetwork | undefined;

  constructor(
    readonly name: string,
    /** `host:port` that the group's devices dial. */
    public target: string,
  ) {}

  async dialThrough(upstream: { readonly host: string; readonly port: number }, random: () => number): Promise<void> {
    this.network = new FaultyNetwork(upstream, random);
    this.target = `127.0.0.1:${await this.network.listen()}`;
  }

  begin(fault: Fault): void {
    switch (fault.kind) {
      case 'drop':
        return this.network?.drop(true);
      case 'freeze':
        return this.network?.freeze(true);
      case 'half-open':
        return this.network?.halfOpen();
      case 'delay':
        return this.network?.delay(fault.ms, fault.jitterMs);
      case 'duplicate':
      case 'reorder':
        return this.messages({ [fault.kind]: fault.chance });
      case 'skew':
        this.weather = { ...this.weather, skewMs: fault.ms };
        return;
      case 'restart':
        return;
    }
  }

  end(fault: Fault): void {
    switch (fault.kind) {
      case 'drop':
        return this.network?.drop(false);
      case 'freeze':
        return this.network?.freeze(false);
      case 'delay':
        return this.network?.delay(0);
      case 'duplicate':
      case 'reorder':
        return this.messages({ [fault.kind]: 0 });
      case 'skew':
        this.weather = { ...this.weather, skewMs: 0 };
        return;
      case 'half-open':
      case 'restart':
        return;
    }
  }

  async close(): Promise<void> {
    await this.network?.close();
  }

  private messages(change: Partial<GroupWeather['messages']>): void {
    this.weather = { ...this.weather, messages: { ...this.weather.messages, ...change } };
  }
}

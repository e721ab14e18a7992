import { Body, Controller, Get, HttpCode, type MessageEvent, Param, Post, Sse } from '@nestjs/common';
import { ApiAcceptedResponse, ApiBody, ApiOkResponse, ApiTags } from '@nestjs/swagger';
import { map, type Observable } from 'rxjs';
import { bodySchema, ZodPipe } from '../zod.pipe.js';
import { SubmitInference, type InferenceView } from './inference.js';
import { InferenceService } from './inference.service.js';

@ApiTags('inferences')
@Controller('api/v1/inferences')
export class InferenceController {
  constructor(private readonly inferences: InferenceService) {}

  /** Queues an inference; follow it at `:id` or `:id/events`. */
  @Post()
  @HttpCode(202)
  @ApiBody(bodySchema(SubmitInference))
  @ApiAcceptedResponse({ description: 'The queued inference.' })
  submit(@Body(new ZodPipe(SubmitInference)) body: SubmitInference): Promise<InferenceView> {
    return this.inferences.submit(body);
  }

  @Get()
  @ApiOkResponse({ description: 'The newest 100.' })
  list(): Promise<InferenceView[]> {
    return this.inferences.list();
  }

  @Get(':id')
  @ApiOkResponse({ description: 'The inference, with the answer as far as it has come.' })
  get(@Param('id') id: string): Promise<InferenceView> {
    return this.inferences.get(id);
  }

  /**
   * Server-sent events: `state` with the inference, `delta` with new text (the answer so far is its first `offset` characters and then `text`),
   * `done` with the inference at its end.
   */
  @Sse(':id/events')
  async events(@Param('id') id: string): Promise<Observable<MessageEvent>> {
    await this.inferences.get(id);
    return this.inferences.follow(id).pipe(
      map((news): MessageEvent => {
        if (news.event !== 'delta') return { type: news.event, data: news.inference };
        const { event, ...delta } = news;
        return { type: event, data: delta };
      }),
    );
  }
}

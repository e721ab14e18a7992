import { describe, expect, it } from '@jest/globals';
import { Phase, SessionRequest, SessionResponse } from './index.js';

// Bytes that a fleet in the field has already sent. A changed field number, type or oneof shows here even when both sides of a build agree.
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('the wire form', () => {
  it('of a report keeps its bytes', () => {
    const report: SessionRequest = {
      message: {
        $case: 'report',
        value: {
          sequence: 7n,
          generation: 3n,
          phase: Phase.PHASE_FAILED,
          observed: { generation: 2n, modelVersionId: 'aa', sliceId: 'wide' },
          fetchedBytes: 300n,
          totalBytes: 4096n,
          error: 'chunk',
          activation: undefined,
        },
      },
    };
    const golden = '1a21' + '0807' + '1003' + '1805' + '220c080212026161' + '1a0477696465' + '28ac02' + '308020' + '3a056368756e6b';
    expect(hex(SessionRequest.encode(report).finish())).toBe(golden);
    expect(SessionRequest.decode(Buffer.from(golden, 'hex'))).toEqual(report);
  });

  it('of a started inference keeps its bytes', () => {
    const start = SessionResponse.fromPartial({
      message: {
        $case: 'startInference',
        value: {
          attemptId: 'a1',
          remainingMs: 1500,
          request: { messages: [{ role: 2, parts: [{ content: { $case: 'text', value: 'hi' } }] }], maxTokens: 8 },
          sliceId: 's',
        },
      },
    });
    expect(hex(SessionResponse.encode(start).finish())).toBe('2a18' + '0a026131' + '18dc0b' + '220c' + '1208080212040a026869' + '2008' + '320173');
  });

  it('skips fields that a newer sender adds', () => {
    // HeartbeatAck { sequence: 9 } followed by an unknown field 15 of type string.
    const bytes = Buffer.from('1207' + '0809' + '7a03' + '616263', 'hex');
    expect(SessionResponse.decode(bytes).message).toEqual({ $case: 'heartbeatAck', value: { sequence: 9n, serverTimeUnixMs: 0n } });
  });
});

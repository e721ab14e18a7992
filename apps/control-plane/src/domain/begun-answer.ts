/** What devices have told of an answer that is not at its end: the text, and the tokens that it came from. */
export interface BegunAnswer {
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** Of the model that wrote it: another vocabulary cannot go on with these tokens. */
  readonly vocabulary: string;
}

export const NOTHING_BEGUN: BegunAnswer = { text: '', tokenIds: [], vocabulary: '' };

/** What a device with this vocabulary goes on from: what was begun, or nothing. */
export const goesOnFrom = (begun: BegunAnswer, vocabulary: string): BegunAnswer =>
  begun.vocabulary === vocabulary ? begun : { ...NOTHING_BEGUN, vocabulary };

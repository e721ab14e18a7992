import type { Manifest } from '@matfleet/model';
import { roundsActivations } from './weights.js';

/** What measured best on texts that repeat themselves, at hardly a cost on others: bench/results/drafts.md. */
const DRAFT_TOKENS = 4;

/**
 * Tokens to draft where a greedy answer may not depend on how its passes were cut. Products that round activations compute slightly other logits in a pass over
 * several tokens than in single ones, so such models draft nothing unless the caller asks.
 */
export const exactDraftTokens = (manifest: Pick<Manifest, 'config' | 'precision'>): number => (roundsActivations(manifest) ? 0 : DRAFT_TOKENS);

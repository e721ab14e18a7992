import { ago } from '../format.js';
import { useNow } from '../use-now.js';

/** A time that ages while the page is open. */
export function Ago({ iso }: { readonly iso: string }) {
  return (
    <time dateTime={iso} title={new Date(iso).toLocaleString()}>
      {ago(iso, useNow())}
    </time>
  );
}

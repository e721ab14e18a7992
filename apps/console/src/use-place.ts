import { useEffect, useState } from 'react';

export const places = ['fleet', 'identity', 'audit'] as const;
export type Place = (typeof places)[number];

/** `#/audit` is a page of its own; every other fragment is a place on the fleet's. */
export const placeOf = (hash: string): Place => places.find((place) => hash === `#/${place}`) ?? 'fleet';

/** Which page the address names: a link can be kept, and the browser's way back works. */
export function usePlace(): Place {
  const [place, setPlace] = useState(() => placeOf(location.hash));
  useEffect(() => {
    const follow = (): void => setPlace(placeOf(location.hash));
    window.addEventListener('hashchange', follow);
    return () => window.removeEventListener('hashchange', follow);
  }, []);
  return place;
}

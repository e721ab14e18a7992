/** The product's mark: three slices of one model, each in the one above it. */
export function Mark() {
  return (
    <svg width="22" height="22" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <rect width="32" height="32" rx="7" fill="var(--accent)" />
      <g fill="var(--panel)">
        <rect x="7" y="19" width="5" height="6" rx="1" />
        <rect x="13.5" y="13" width="5" height="12" rx="1" />
        <rect x="20" y="7" width="5" height="18" rx="1" />
      </g>
    </svg>
  );
}

import { Component, type ReactNode } from 'react';

interface Props {
  /** What is inside, as it stands in a sentence. */
  readonly what: string;
  readonly children: ReactNode;
}

/** A part of the page that fails to draw says so in its place, and the rest of the page stays. */
export class Boundary extends Component<Props, { readonly error: Error | null }> {
  override state = { error: null };

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  override render() {
    const { error } = this.state as { readonly error: Error | null };
    if (!error) return this.props.children;
    return (
      <p role="alert" style={{ margin: 0, padding: 14, color: 'var(--bad)' }}>
        {this.props.what} could not be shown: {error.message}. Reload the page; if it stays, page and control plane may be of different versions.
      </p>
    );
  }
}

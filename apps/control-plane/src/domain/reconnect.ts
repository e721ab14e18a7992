/** TLS handshakes that one process begins in a second. */
export const CONNECTIONS_PER_SECOND = 250;

/**
 * How widely devices that lost their session spread their return, milliseconds. So wide that the handshakes of a whole fleet keep below what is
 * taken; whoever comes before there is room for its session is told when there is.
 */
export const reconnectJitterMs = (devices: number): number => 500 + Math.ceil((1_000 * devices) / (0.8 * CONNECTIONS_PER_SECOND));

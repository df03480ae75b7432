/**
 * Bodies of requests, read whole and within bounds: of one request, and of all together.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { HttpFailure } from "./access.ts";

/** Of a body that is too large, so much more is read and dropped, bytes, before the connection is cut. */
const MAX_DROPPED_BYTES = 64 * 1024 * 1024;
/** Bodies of all requests that are not answered yet, bytes: sixteen of the largest, or thousands of ordinary ones. */
const MAX_BODIES_BYTES = 256 * 1024 * 1024;

/** Bytes of the bodies of all requests that are not answered yet. */
let bodiesBytes = 0;

/**
 * Reads a body to its end; null when it is larger than the cap, in bytes. What is too much is dropped, but read, as far as
 * `MAX_DROPPED_BYTES`: a client that still sends does not hear the answer, and its connection could not be used again.
 *
 * @param most bytes of all together.
 * @throws HttpFailure 503 when too many bodies wait for their answers, 400 when the client left.
 */
export function readBody(
  request: IncomingMessage,
  response: ServerResponse,
  cap: number,
  most = MAX_BODIES_BYTES,
): Promise<Buffer<ArrayBuffer> | null> {
  return new Promise((resolve, reject) => {
    let chunks: Buffer[] = [];
    let size = 0;
    let held = 0;
    let overloaded = false;
    const release = (): void => {
      chunks = [];
      bodiesBytes -= held;
      held = 0;
    };
    request.on("data", (chunk: Buffer) => {
      size += chunk.length;
      if (size > cap + MAX_DROPPED_BYTES) request.destroy();
      overloaded ||= bodiesBytes + chunk.length > most;
      if (overloaded || size > cap) {
        release();
        return;
      }
      chunks.push(chunk);
      held += chunk.length;
      bodiesBytes += chunk.length;
    });
    request.once("end", () => {
      const whole = Buffer.concat(chunks) as Buffer<ArrayBuffer>;
      chunks = [];
      if (size > cap) resolve(null);
      else if (overloaded) reject(new HttpFailure(503, "Overloaded", "too much is being sent: try again"));
      else resolve(whole);
    });
    request.once("close", () => {
      reject(new HttpFailure(400, "BadRequest", "the client left before its request was complete"));
    });
    response.once("close", release);
  });
}

/** One page of a long answer. */
import type { PaginationOptions } from "convex/server";
import { quote, wholeNumber } from "./checks";
import { invalid } from "./refusal";

/** A page ends early after this much was read (bytes), so that 1,000 rows of the longest texts stay under Convex's 16 MiB. */
const MAX_PAGE_BYTES = 8 * 1024 * 1024;

/** The page that a request asks for; `bytes` where what is read beside it needs room. */
export function pageSize(
  request: { cursor?: string | null; limit?: number },
  limits: { default: number; max: number; bytes?: number },
): PaginationOptions {
  const options = {
    cursor: request.cursor ?? null,
    numItems: wholeNumber(request.limit ?? limits.default, "limit", 1, limits.max),
    // which older versions of the package pass on, and have not in the type
    maximumBytesRead: limits.bytes ?? MAX_PAGE_BYTES,
  };
  return options;
}

/** Read a page; a cursor that was never given out is `invalid`. */
export async function paged<Page>(
  options: PaginationOptions,
  read: (options: PaginationOptions) => Promise<Page>,
): Promise<Page> {
  try {
    return await read(options);
  } catch (error) {
    // the database names no kind of error here; the first page takes no cursor and so cannot fail by it
    if (options.cursor === null) throw error;
    throw invalid("cursor", `${quote(options.cursor)} leads nowhere; begin again without one`);
  }
}

/** Who may, and what is refused: tokens and bad input. */
import { expect } from "vitest";
import type { OwnToken } from "../../../convex/heartbeat/model/tokenValidators";
import { book, HINT } from "./book";
import { DAY, every, HOUR, hashOf, MINUTE, runId, TOKENS, type World } from "../world";

const { stories, story } = book();
export { stories };

story("a token does what it is for and nothing else, and ends when it is revoked", async (w) => {
  await w.register(HINT, { agent: "rams", schedule: every(HOUR) });
  expect(await w.send("hint", {}, { as: "hintOnly" })).toMatchObject({ outcome: "recorded" });
  const refusal = { code: "unauthorized", message: "No valid token for this call." };
  const foreign = w.heartbeat("rams");
  expect(
    await w.refused("mutations/recordHeartbeat", foreign, { as: "hintOnly", example: "unauthorized" }),
  ).toEqual(refusal);
  // not even whether the agent exists
  expect(await w.refused("mutations/recordHeartbeat", w.heartbeat("nobody"), { as: "hintOnly" })).toEqual(
    refusal,
  );
  expect(await w.refused("mutations/recordHeartbeat", w.heartbeat("hint"), { as: "nobody" })).toEqual(
    refusal,
  );
  expect(await w.refused("queries/getAgentDashboard", {}, { as: "sender" })).toEqual(refusal);
  expect(await w.refused("mutations/recordHeartbeat", w.heartbeat("hint"), { as: "reader" })).toEqual(
    refusal,
  );

  const request = {
    tokenHash: hashOf(`temporary ${w.now}`),
    name: "temporary",
    scope: "send",
    agents: ["hint"],
  };
  const made = await w.ask<{ fingerprint: string }>("mutations/createToken", request, { example: "a token" });
  expect(await w.ask("mutations/createToken", request)).toEqual(made);
  for (const change of [
    { scope: "admin", agents: undefined },
    { name: "other" },
    { agents: ["rams"] },
    { hostName: "h" },
  ]) {
    const data = await w.refused("mutations/createToken", { ...request, ...change });
    expect(data).toMatchObject({ code: "conflict" });
  }
  const reader = { tokenHash: hashOf(TOKENS.reader), name: "reader" };
  expect(await w.refused("mutations/createToken", { ...reader, scope: "admin" })).toMatchObject({
    code: "conflict",
  });
  for (const [field, change] of [
    ["tokenHash", { tokenHash: request.tokenHash.toUpperCase() }],
    ["name", { name: " " }],
    ["name", { name: "n".repeat(101) }],
    ["agents", { agents: [] }],
    ["agents", { agents: ["Hint"] }],
    ["agents", { scope: "read" }],
  ] as const) {
    const data = await w.refused("mutations/createToken", { ...request, ...change });
    expect(data).toMatchObject({ code: "invalid", field });
  }
  const { fingerprint } = made;
  const revoked = await w.ask("mutations/revokeToken", { fingerprint }, { example: "revoked" });
  await w.pass(MINUTE);
  expect(await w.ask("mutations/revokeToken", { fingerprint })).toEqual(revoked);
  // what was revoked does not come back
  expect(await w.refused("mutations/createToken", request)).toMatchObject({ code: "conflict" });
  expect(await w.refused("mutations/revokeToken", { fingerprint: "0123456789ab" })).toMatchObject({
    code: "invalid",
  });
  const { tokens } = await w.ask<{ tokens: { fingerprint: string }[] }>(
    "queries/listTokens",
    {},
    { example: "all" },
  );
  expect(tokens.find((one) => one.fingerprint === fingerprint)).toEqual({
    fingerprint,
    name: "temporary",
    scope: "send",
    agents: ["hint"],
    createdAt: expect.any(Number) as number,
    revokedAt: w.now - MINUTE,
  });
  expect(JSON.stringify(tokens)).not.toContain(request.tokenHash);
});

const fingerprintOf = (token: string) => hashOf(token).slice(0, 12);

story("a token is told what it is, and which tokens are older, revoked ones too", async (w) => {
  const ask = async (as: "reader" | "hintOnly" | "hintNewer", fingerprints?: string[], example?: string) =>
    await w.ask<OwnToken>("queries/getToken", fingerprints ? { fingerprints } : {}, { as, example });
  const madeAt = w.now;
  const [old, newer, reader] = [TOKENS.hintOnly, TOKENS.hintNewer, TOKENS.reader].map(fingerprintOf) as [
    string,
    string,
    string,
  ];
  const itself = { fingerprint: old, name: "hint's host", scope: "send", agents: ["hint"] };
  expect(await ask("hintOnly")).toEqual({ ...itself, hostName: "torvalds", createdAt: madeAt, older: [] });
  // made at the same instant is not older
  expect(await ask("hintOnly", [old, reader, "0123456789ab", ""])).toMatchObject({ older: [] });

  // rotated without a gap: for a while both are valid
  w.later(HOUR);
  const request = {
    tokenHash: hashOf(TOKENS.hintNewer),
    name: "hint's host",
    scope: "send",
    agents: ["hint"],
  };
  await w.ask("mutations/createToken", request);
  await w.register(HINT);
  expect(await w.send("hint", {}, { as: "hintOnly" })).toMatchObject({ outcome: "recorded" });
  expect(await w.send("hint", {}, { as: "hintNewer" })).toMatchObject({ outcome: "recorded" });
  expect(await ask("hintOnly", [newer])).toMatchObject({ older: [] });
  await w.ask("mutations/revokeToken", { fingerprint: old });
  expect(await w.refused("queries/getToken", {}, { as: "hintOnly" })).toMatchObject({ code: "unauthorized" });
  const asked = [newer, old, "0123456789ab", old, reader];
  expect(await ask("hintNewer", asked, "older tokens")).toMatchObject({
    fingerprint: newer,
    older: [old, reader],
  });
  const many = Array.from({ length: 101 }, (_, nth) => nth.toString(16).padStart(12, "0"));
  expect(await ask("reader", many.slice(1))).toMatchObject({ older: [] });
  expect(await w.refused("queries/getToken", { fingerprints: many })).toMatchObject({
    code: "invalid",
    field: "fingerprints",
  });
});

story("the day on which a token last changed something is kept, for those that can", async (w) => {
  await w.register(HINT);
  const today = w.now - (w.now % DAY);
  const sender = { as: "hintOnly" } as const;
  // neither what is asked nor what is refused counts
  await w.ask("queries/getToken", {}, sender);
  await w.refused("mutations/recordHeartbeat", { ...w.heartbeat("hint"), status: "sleepy" }, sender);
  expect(await usedAt(w)).toMatchObject({ admin: today, hintOnly: undefined });
  await w.send("hint", {}, sender);
  expect(await usedAt(w)).toMatchObject({ hintOnly: today, sender: undefined });

  w.later(today + DAY - 1 - w.now);
  await w.send("hint", {}, sender);
  expect(await usedAt(w)).toMatchObject({ hintOnly: today });
  w.later(1);
  await w.deliver([w.heartbeat("hint")], sender);
  expect(await usedAt(w)).toEqual({
    admin: today,
    reader: undefined,
    sender: undefined,
    hintOnly: today + DAY,
  });
  const own = await w.ask<OwnToken>("queries/getToken", {}, { ...sender, example: "used today" });
  expect(own.lastUsedAt).toBe(today + DAY);
  // a clock that was wrong for a while leaves no wrong day behind
  w.later(-3 * DAY);
  await w.send("hint", {}, sender);
  expect((await usedAt(w)).hintOnly).toBe(today - 2 * DAY);
});

/** When each token of the story was last used, by its name in the story. */
async function usedAt(w: World): Promise<Record<string, number | undefined>> {
  type Listed = { tokens: { fingerprint: string; lastUsedAt?: number }[] };
  const { tokens } = await w.ask<Listed>("queries/listTokens", {}, { as: "reader" });
  const names = Object.entries(TOKENS).map(([name, text]) => [fingerprintOf(text), name]);
  const nameOf = Object.fromEntries(names) as Record<string, string>;
  return Object.fromEntries(tokens.map((one) => [nameOf[one.fingerprint], one.lastUsedAt]));
}

story("bad input is refused by name, and nothing is written", async (w) => {
  await w.register(HINT);
  const before = await w.row("hint");
  const bad: [field: string, change: object][] = [
    ["heartbeatId", { heartbeatId: "not-a-uuid" }],
    ["heartbeatId", { heartbeatId: w.newHeartbeatId().toUpperCase().replace("7000", "7ABC") }],
    ["heartbeatId", { heartbeatId: "0190f0c0-0000-4000-9000-000000000001" }],
    ["agent", { agent: "Hint" }],
    ["agent", { agent: "a".repeat(65) }],
    ["sentAt", { sentAt: NaN }],
    ["sentAt", { sentAt: -1 }],
    ["sentAt", { sentAt: 0 }],
    ["deliveredAt", { deliveredAt: Infinity }],
    ["deliveredAt", { deliveredAt: 8.64e15 }],
    ["status", { status: "sleepy" }],
    ["status", { status: "constructor" }],
    ["status", { status: "ok ".repeat(100) }],
    ["summary", { summary: "x".repeat(501) }],
    ["error", { error: "x".repeat(4_001) }],
    ["result", { result: "done" }],
    ["host", { host: "h".repeat(256) }],
    ["clientVersion", { clientVersion: "1".repeat(65) }],
    ["openTasks", { openTasks: -1 }],
    ["openTasks", { openTasks: 1.5 }],
    ["openTasks", { openTasks: 1e9 }],
    ["staleTasks", { openTasks: 1, staleTasks: 2 }],
    ["staleTasks", { staleTasks: undefined }],
    ["openTasks", { openTasks: undefined }],
    ["run.runId", { run: { runId: "1", phase: "start" } }],
    ["run.phase", { run: { runId: runId(1), phase: "middle" } }],
    ["run.startedAt", { run: { runId: runId(1), phase: "start", startedAt: NaN } }],
    ["run.finishedAt", { run: { runId: runId(1), phase: "finish", finishedAt: -5 } }],
    ["run.durationMs", { run: { runId: runId(1), phase: "finish", durationMs: -5 } }],
    ["run.exitCode", { run: { runId: runId(1), phase: "finish", exitCode: 0.5 } }],
    ["run.output", { run: { runId: runId(1), phase: "finish", output: "x".repeat(10_001) } }],
  ];
  for (const [field, change] of bad) {
    const heartbeat = { ...w.heartbeat("hint"), ...change };
    const data = await w.refused("mutations/recordHeartbeat", heartbeat);
    expect(data, JSON.stringify(change)).toMatchObject({ code: "invalid", field });
  }
  const long = { ...w.heartbeat("hint"), summary: "x".repeat(612) };
  expect(
    await w.refused("mutations/recordHeartbeat", long, { example: "a summary that is too long" }),
  ).toMatchObject({
    message: "summary: 612 characters, at most 500 are taken",
  });
  expect(
    await w.refused("mutations/recordHeartbeat", w.heartbeat("nobody"), {
      example: "an agent nobody applied",
    }),
  ).toMatchObject({ code: "unknown_agent" });
  expect(await w.row("hint")).toEqual(before);
  // 500 characters that take two units each in UTF-16 are still 500
  expect(await w.send("hint", { summary: "🫀".repeat(500) })).toMatchObject({ outcome: "recorded" });
  expect(await w.refused("queries/getAgent", { agent: "hint", at: NaN })).toMatchObject({ field: "at" });
  expect(await w.refused("queries/getAgentTaskCounts", { agent: "hint", at: 9e15 })).toMatchObject({
    field: "at",
  });
  expect(await w.refused("queries/getAgentHistory", { agent: "hint", limit: 201 })).toMatchObject({
    field: "limit",
  });
});

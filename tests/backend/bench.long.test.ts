/** The benchmark of the backend runs; what it measures here says nothing. */
import { spawn } from "node:child_process";
import { expect, test } from "vitest";

const SHORT = ["--rows", "100", "--rounds", "1", "--seconds", "0.2"];

test("the shortest benchmark of starts and subscribers prints every figure", async () => {
  const child = spawn(process.execPath, ["bench/backend.ts", "starts", "subscribers", ...SHORT], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let printed = "";
  child.stdout.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  expect(await new Promise((resolve) => child.once("close", resolve))).toBe(0);
  const figures = printed
    .trimEnd()
    .split("\n")
    .slice(1, -1)
    .map((line) => line.replaceAll(/\d+([.,]\d+)*/g, "N").replace(/: (NOT )?reached\]$/, "]"));
  expect(figures.map((line) => line.replaceAll(/ {2,}/g, " ").trim())).toEqual([
    "start, empty, a ready bundle N ms",
    "start with N rows, a ready bundle N ms [N s]",
    "start with N rows, a folder to be bundled N ms [N s]",
    "memory then N MB [N MB]",
    "N subscribers, N heartbeats/s: behind pN N ms, pN N ms, at most N ms [N s at most]",
    "each got N answers/s of N kB; the watching process used N % of a core",
    "heartbeats without them pN N ms, pN N ms",
    "heartbeats beside them pN N ms, pN N ms",
    "slower pN N, pN N times [N times]",
    "memory, at most N MB [N MB]",
  ]);
});

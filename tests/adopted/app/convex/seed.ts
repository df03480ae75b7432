import { v } from "convex/values";
import { internalMutation } from "./_generated/server";

const BOTS = ["Hint", "Torv", "Rams", "Kami", ...Array.from({ length: 12 }, (_, nth) => `Bot-${nth + 1}`)];
const PEOPLE = ["Ada", "Dieter", "Grace", "Linus"];
const ROLES = ["writer", "reviewer", "editor"] as const;
const STATES = ["idea", "doing", "review", "shipped", "dropped"] as const;
const TASKS = 180;
const DAY_MS = 24 * 60 * 60_000;

/** 20 agents and 180 tasks: each task with none to three assignees, touched up to two weeks before `at`. */
export default internalMutation({
  args: { at: v.number() },
  handler: async (ctx, { at }) => {
    const ids = [];
    for (const [nth, handle] of [...BOTS, ...PEOPLE].entries()) {
      const kind = PEOPLE.includes(handle) ? "person" : "bot";
      const role = ROLES[nth % ROLES.length] ?? "writer";
      const skills = [`skill-${nth % 5}`, `skill-${nth % 7}`];
      ids.push(await ctx.db.insert("agents", { handle, kind, role, skills, joinedAt: at - nth * DAY_MS }));
    }
    for (let nth = 0; nth < TASKS; nth++) {
      const assignees = ids.filter((_, place) => (3 * place + nth) % 19 < nth % 4);
      await ctx.db.insert("tasks", {
        title: `task ${nth}`,
        state: STATES[nth % STATES.length] ?? "idea",
        assignees,
        lastActivityAt: at - (nth % 15) * DAY_MS,
        ...(nth % 3 === 0 ? { notes: `first words on task ${nth}` } : {}),
      });
    }
  },
});

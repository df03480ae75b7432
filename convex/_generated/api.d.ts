/* eslint-disable */
/**
 * Generated `api` utility.
 *
 * THIS CODE IS AUTOMATICALLY GENERATED.
 *
 * To regenerate, run `npx convex dev`.
 * @module
 */

import type {
  ApiFromModules,
  FilterApi,
  FunctionReference,
} from "convex/server";
import type * as crons from "../crons.js";
import type * as fleet from "../fleet.js";
import type * as maintenance from "../maintenance.js";
import type * as model_access from "../model/access.js";
import type * as model_agents from "../model/agents.js";
import type * as model_allowance from "../model/allowance.js";
import type * as model_batch from "../model/batch.js";
import type * as model_checks from "../model/checks.js";
import type * as model_cron from "../model/cron.js";
import type * as model_expected from "../model/expected.js";
import type * as model_failures from "../model/failures.js";
import type * as model_heartbeatValidators from "../model/heartbeatValidators.js";
import type * as model_heartbeats from "../model/heartbeats.js";
import type * as model_history from "../model/history.js";
import type * as model_liveness from "../model/liveness.js";
import type * as model_monitor from "../model/monitor.js";
import type * as model_pages from "../model/pages.js";
import type * as model_prune from "../model/prune.js";
import type * as model_refusal from "../model/refusal.js";
import type * as model_runList from "../model/runList.js";
import type * as model_runs from "../model/runs.js";
import type * as model_schedules from "../model/schedules.js";
import type * as model_shown from "../model/shown.js";
import type * as model_sweep from "../model/sweep.js";
import type * as model_tasks from "../model/tasks.js";
import type * as model_tokenValidators from "../model/tokenValidators.js";
import type * as model_tokens from "../model/tokens.js";
import type * as model_validators from "../model/validators.js";
import type * as model_views from "../model/views.js";
import type * as mutations_addTask from "../mutations/addTask.js";
import type * as mutations_applySchedule from "../mutations/applySchedule.js";
import type * as mutations_completeTask from "../mutations/completeTask.js";
import type * as mutations_createToken from "../mutations/createToken.js";
import type * as mutations_recordHeartbeat from "../mutations/recordHeartbeat.js";
import type * as mutations_recordHeartbeats from "../mutations/recordHeartbeats.js";
import type * as mutations_revokeToken from "../mutations/revokeToken.js";
import type * as mutations_setAgentControl from "../mutations/setAgentControl.js";
import type * as queries_getAgent from "../queries/getAgent.js";
import type * as queries_getAgentDashboard from "../queries/getAgentDashboard.js";
import type * as queries_getAgentHistory from "../queries/getAgentHistory.js";
import type * as queries_getAgentRuns from "../queries/getAgentRuns.js";
import type * as queries_getAgentTaskCounts from "../queries/getAgentTaskCounts.js";
import type * as queries_getMonitorStatus from "../queries/getMonitorStatus.js";
import type * as queries_getToken from "../queries/getToken.js";
import type * as queries_listAgentTasks from "../queries/listAgentTasks.js";
import type * as queries_listTokens from "../queries/listTokens.js";
import type * as setup from "../setup.js";

/**
 * A utility for referencing Convex functions in your app's API.
 *
 * Usage:
 * ```js
 * const myFunctionReference = api.myModule.myFunction;
 * ```
 */
declare const fullApi: ApiFromModules<{
  crons: typeof crons;
  fleet: typeof fleet;
  maintenance: typeof maintenance;
  "model/access": typeof model_access;
  "model/agents": typeof model_agents;
  "model/allowance": typeof model_allowance;
  "model/batch": typeof model_batch;
  "model/checks": typeof model_checks;
  "model/cron": typeof model_cron;
  "model/expected": typeof model_expected;
  "model/failures": typeof model_failures;
  "model/heartbeatValidators": typeof model_heartbeatValidators;
  "model/heartbeats": typeof model_heartbeats;
  "model/history": typeof model_history;
  "model/liveness": typeof model_liveness;
  "model/monitor": typeof model_monitor;
  "model/pages": typeof model_pages;
  "model/prune": typeof model_prune;
  "model/refusal": typeof model_refusal;
  "model/runList": typeof model_runList;
  "model/runs": typeof model_runs;
  "model/schedules": typeof model_schedules;
  "model/shown": typeof model_shown;
  "model/sweep": typeof model_sweep;
  "model/tasks": typeof model_tasks;
  "model/tokenValidators": typeof model_tokenValidators;
  "model/tokens": typeof model_tokens;
  "model/validators": typeof model_validators;
  "model/views": typeof model_views;
  "mutations/addTask": typeof mutations_addTask;
  "mutations/applySchedule": typeof mutations_applySchedule;
  "mutations/completeTask": typeof mutations_completeTask;
  "mutations/createToken": typeof mutations_createToken;
  "mutations/recordHeartbeat": typeof mutations_recordHeartbeat;
  "mutations/recordHeartbeats": typeof mutations_recordHeartbeats;
  "mutations/revokeToken": typeof mutations_revokeToken;
  "mutations/setAgentControl": typeof mutations_setAgentControl;
  "queries/getAgent": typeof queries_getAgent;
  "queries/getAgentDashboard": typeof queries_getAgentDashboard;
  "queries/getAgentHistory": typeof queries_getAgentHistory;
  "queries/getAgentRuns": typeof queries_getAgentRuns;
  "queries/getAgentTaskCounts": typeof queries_getAgentTaskCounts;
  "queries/getMonitorStatus": typeof queries_getMonitorStatus;
  "queries/getToken": typeof queries_getToken;
  "queries/listAgentTasks": typeof queries_listAgentTasks;
  "queries/listTokens": typeof queries_listTokens;
  setup: typeof setup;
}>;
export declare const api: FilterApi<
  typeof fullApi,
  FunctionReference<any, "public">
>;
export declare const internal: FilterApi<
  typeof fullApi,
  FunctionReference<any, "internal">
>;

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
import type * as heartbeat_crons from "../heartbeat/crons.js";
import type * as heartbeat_fleet from "../heartbeat/fleet.js";
import type * as heartbeat_maintenance from "../heartbeat/maintenance.js";
import type * as heartbeat_mirror from "../heartbeat/mirror.js";
import type * as heartbeat_model_access from "../heartbeat/model/access.js";
import type * as heartbeat_model_agents from "../heartbeat/model/agents.js";
import type * as heartbeat_model_allowance from "../heartbeat/model/allowance.js";
import type * as heartbeat_model_batch from "../heartbeat/model/batch.js";
import type * as heartbeat_model_checks from "../heartbeat/model/checks.js";
import type * as heartbeat_model_cron from "../heartbeat/model/cron.js";
import type * as heartbeat_model_expected from "../heartbeat/model/expected.js";
import type * as heartbeat_model_failures from "../heartbeat/model/failures.js";
import type * as heartbeat_model_heartbeatValidators from "../heartbeat/model/heartbeatValidators.js";
import type * as heartbeat_model_heartbeats from "../heartbeat/model/heartbeats.js";
import type * as heartbeat_model_history from "../heartbeat/model/history.js";
import type * as heartbeat_model_leave from "../heartbeat/model/leave.js";
import type * as heartbeat_model_links from "../heartbeat/model/links.js";
import type * as heartbeat_model_liveness from "../heartbeat/model/liveness.js";
import type * as heartbeat_model_mirror from "../heartbeat/model/mirror.js";
import type * as heartbeat_model_monitor from "../heartbeat/model/monitor.js";
import type * as heartbeat_model_move from "../heartbeat/model/move.js";
import type * as heartbeat_model_moveValidators from "../heartbeat/model/moveValidators.js";
import type * as heartbeat_model_pages from "../heartbeat/model/pages.js";
import type * as heartbeat_model_prune from "../heartbeat/model/prune.js";
import type * as heartbeat_model_reconcile from "../heartbeat/model/reconcile.js";
import type * as heartbeat_model_refusal from "../heartbeat/model/refusal.js";
import type * as heartbeat_model_runList from "../heartbeat/model/runList.js";
import type * as heartbeat_model_runs from "../heartbeat/model/runs.js";
import type * as heartbeat_model_schedules from "../heartbeat/model/schedules.js";
import type * as heartbeat_model_shown from "../heartbeat/model/shown.js";
import type * as heartbeat_model_sweep from "../heartbeat/model/sweep.js";
import type * as heartbeat_model_tasks from "../heartbeat/model/tasks.js";
import type * as heartbeat_model_tokenValidators from "../heartbeat/model/tokenValidators.js";
import type * as heartbeat_model_tokens from "../heartbeat/model/tokens.js";
import type * as heartbeat_model_validators from "../heartbeat/model/validators.js";
import type * as heartbeat_model_views from "../heartbeat/model/views.js";
import type * as heartbeat_setup from "../heartbeat/setup.js";
import type * as heartbeat_tables from "../heartbeat/tables.js";
import type * as mutations_addTask from "../mutations/addTask.js";
import type * as mutations_applySchedule from "../mutations/applySchedule.js";
import type * as mutations_completeTask from "../mutations/completeTask.js";
import type * as mutations_createToken from "../mutations/createToken.js";
import type * as mutations_importRecords from "../mutations/importRecords.js";
import type * as mutations_leave from "../mutations/leave.js";
import type * as mutations_recordHeartbeat from "../mutations/recordHeartbeat.js";
import type * as mutations_recordHeartbeats from "../mutations/recordHeartbeats.js";
import type * as mutations_revokeToken from "../mutations/revokeToken.js";
import type * as mutations_setAgentControl from "../mutations/setAgentControl.js";
import type * as queries_exportRecords from "../queries/exportRecords.js";
import type * as queries_getAgent from "../queries/getAgent.js";
import type * as queries_getAgentDashboard from "../queries/getAgentDashboard.js";
import type * as queries_getAgentHistory from "../queries/getAgentHistory.js";
import type * as queries_getAgentRuns from "../queries/getAgentRuns.js";
import type * as queries_getAgentTaskCounts from "../queries/getAgentTaskCounts.js";
import type * as queries_getMonitorStatus from "../queries/getMonitorStatus.js";
import type * as queries_getToken from "../queries/getToken.js";
import type * as queries_listAgentTasks from "../queries/listAgentTasks.js";
import type * as queries_listTokens from "../queries/listTokens.js";

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
  "heartbeat/crons": typeof heartbeat_crons;
  "heartbeat/fleet": typeof heartbeat_fleet;
  "heartbeat/maintenance": typeof heartbeat_maintenance;
  "heartbeat/mirror": typeof heartbeat_mirror;
  "heartbeat/model/access": typeof heartbeat_model_access;
  "heartbeat/model/agents": typeof heartbeat_model_agents;
  "heartbeat/model/allowance": typeof heartbeat_model_allowance;
  "heartbeat/model/batch": typeof heartbeat_model_batch;
  "heartbeat/model/checks": typeof heartbeat_model_checks;
  "heartbeat/model/cron": typeof heartbeat_model_cron;
  "heartbeat/model/expected": typeof heartbeat_model_expected;
  "heartbeat/model/failures": typeof heartbeat_model_failures;
  "heartbeat/model/heartbeatValidators": typeof heartbeat_model_heartbeatValidators;
  "heartbeat/model/heartbeats": typeof heartbeat_model_heartbeats;
  "heartbeat/model/history": typeof heartbeat_model_history;
  "heartbeat/model/leave": typeof heartbeat_model_leave;
  "heartbeat/model/links": typeof heartbeat_model_links;
  "heartbeat/model/liveness": typeof heartbeat_model_liveness;
  "heartbeat/model/mirror": typeof heartbeat_model_mirror;
  "heartbeat/model/monitor": typeof heartbeat_model_monitor;
  "heartbeat/model/move": typeof heartbeat_model_move;
  "heartbeat/model/moveValidators": typeof heartbeat_model_moveValidators;
  "heartbeat/model/pages": typeof heartbeat_model_pages;
  "heartbeat/model/prune": typeof heartbeat_model_prune;
  "heartbeat/model/reconcile": typeof heartbeat_model_reconcile;
  "heartbeat/model/refusal": typeof heartbeat_model_refusal;
  "heartbeat/model/runList": typeof heartbeat_model_runList;
  "heartbeat/model/runs": typeof heartbeat_model_runs;
  "heartbeat/model/schedules": typeof heartbeat_model_schedules;
  "heartbeat/model/shown": typeof heartbeat_model_shown;
  "heartbeat/model/sweep": typeof heartbeat_model_sweep;
  "heartbeat/model/tasks": typeof heartbeat_model_tasks;
  "heartbeat/model/tokenValidators": typeof heartbeat_model_tokenValidators;
  "heartbeat/model/tokens": typeof heartbeat_model_tokens;
  "heartbeat/model/validators": typeof heartbeat_model_validators;
  "heartbeat/model/views": typeof heartbeat_model_views;
  "heartbeat/setup": typeof heartbeat_setup;
  "heartbeat/tables": typeof heartbeat_tables;
  "mutations/addTask": typeof mutations_addTask;
  "mutations/applySchedule": typeof mutations_applySchedule;
  "mutations/completeTask": typeof mutations_completeTask;
  "mutations/createToken": typeof mutations_createToken;
  "mutations/importRecords": typeof mutations_importRecords;
  "mutations/leave": typeof mutations_leave;
  "mutations/recordHeartbeat": typeof mutations_recordHeartbeat;
  "mutations/recordHeartbeats": typeof mutations_recordHeartbeats;
  "mutations/revokeToken": typeof mutations_revokeToken;
  "mutations/setAgentControl": typeof mutations_setAgentControl;
  "queries/exportRecords": typeof queries_exportRecords;
  "queries/getAgent": typeof queries_getAgent;
  "queries/getAgentDashboard": typeof queries_getAgentDashboard;
  "queries/getAgentHistory": typeof queries_getAgentHistory;
  "queries/getAgentRuns": typeof queries_getAgentRuns;
  "queries/getAgentTaskCounts": typeof queries_getAgentTaskCounts;
  "queries/getMonitorStatus": typeof queries_getMonitorStatus;
  "queries/getToken": typeof queries_getToken;
  "queries/listAgentTasks": typeof queries_listAgentTasks;
  "queries/listTokens": typeof queries_listTokens;
}>;
export declare const api: FilterApi<
  typeof fullApi,
  FunctionReference<any, "public">
>;
export declare const internal: FilterApi<
  typeof fullApi,
  FunctionReference<any, "internal">
>;

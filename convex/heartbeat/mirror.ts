/** What the mutations of an app call, once for each task that they inserted, changed or deleted. */
export { mirrorTask } from "./model/mirror";

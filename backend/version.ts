/** The backend's version, as GET /version and the ready line tell it. */
export const VERSION = "0.1.0";

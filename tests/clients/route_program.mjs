// Checks manifests of the Gateway API by the schemas of its Go types, in the folder of node_modules:
// node route_program.mjs <manifests.json. These schemas take fields that they don't know.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const models = "node_modules/@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/index.js";
const { HTTPRoute } = await import(pathToFileURL(resolve(models)));
for (const manifest of JSON.parse(readFileSync(0))) new HTTPRoute(manifest).validate();

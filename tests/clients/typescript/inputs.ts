// What the programs of all clients send: node built/CLIENT.js URL WINDOW.json
import { readFileSync } from "node:fs";

export const [url, file] = process.argv.slice(2);
export const instances: number[][][] = JSON.parse(readFileSync(file, "utf-8")).instances;
export const groups = { hour: ["hour_sin", "hour_cos"] };

export function halves(names: object): Record<string, number> {
  return Object.fromEntries(Object.keys(names).map((name) => [name, 0.5]));
}

/** The lines of a stream of three explanations. */
export async function stream(): Promise<string[]> {
  const response = await fetch(`${url}/v1/models/nyc-weather:explain`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/x-ndjson" },
    body: JSON.stringify({ instances: [...instances, ...instances, ...instances] }),
  });
  return (await response.text()).trimEnd().split("\n");
}

// Bundles app.js, three.js and the contouring worker into ../static/explorer.js, and app.css into explorer.css.
// The first line of each holds the SHA-256 digest of the sources, which a Python test compares: no node in tests.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import * as esbuild from "esbuild";

const names = readdirSync(".").filter((name) => /\.(js|css|mjs)$/.test(name) || name === "package.json").sort();
const digest = createHash("sha256");
for (const name of names) digest.update(`${name}\n`).update(readFileSync(name));
const banner = `/* sources: ${digest.digest("hex")} */`;
const licence = readFileSync("node_modules/three/LICENSE", "utf8").trim().replaceAll("*/", "");

const common = { bundle: true, minify: true, target: "es2022", legalComments: "none", logLevel: "info" };
const worker = await esbuild.build({ ...common, entryPoints: ["surface_worker.js"], format: "iife", write: false });
const source = JSON.stringify(worker.outputFiles[0].text);
// The scene by itself is exported for tests.
const entry = 'export { default } from "./app.js"; export { createScene } from "./scene.js";';
await esbuild.build({
  ...common, stdin: { contents: entry, resolveDir: "." }, format: "esm", outfile: "../static/explorer.js",
  define: { SURFACE_WORKER: source },
  banner: { js: `${banner}\n/* Contains three.js.\n${licence}\n*/` },
});
await esbuild.build({
  ...common, entryPoints: ["app.css"], outfile: "../static/explorer.css", banner: { css: banner },
});

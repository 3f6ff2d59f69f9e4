// Compiles every shader, in every dialect that browsers have, in headless Chromium (whose WGSL compiler is Tint), and
// makes a compute pipeline of each of its variants. Needs `npm install playwright-core` and a Chromium:
//
//     cargo build --release && node docs/browser-check.mjs [CHROMIUM] [swiftshader|default]
//
// SwiftShader has no f16, so its kernels are left out there; `default` takes the machine's own GPU. The exit status is 1 if anything is refused.
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:http';
import { chromium } from 'playwright-core';

const [executablePath = '/usr/bin/chromium', adapter = 'swiftshader'] = process.argv.slice(2);
const ornstein = new URL('../target/release/ornstein', import.meta.url).pathname;
const shader = (...args) => JSON.parse(execFileSync(ornstein, ['shader', '--json', ...args], { encoding: 'utf8' }));

const dialects = [
  { args: ['--dtype', 'f32'], f16: false },
  { args: ['--dtype', 'f32', '--weights', 'f16', '--no-f16'], f16: false },
  { args: ['--dtype', 'f32', '--weights', 'f16'], f16: true },
  { args: ['--dtype', 'f16'], f16: true },
];

const kernels = [];
for (const name of shader().shaders) {
  for (const { args, f16 } of dialects) {
    const { variants } = shader(name, ...args);
    for (const variant of variants) {
      const { text, constants } = shader(name, ...args, '--variant', variant);
      kernels.push({ label: `${name} ${variant} ${args.join(' ')}`, text, constants, f16 });
    }
  }
}

// Runs in the page: a line for everything that is wrong, and the number of kernels that were tried.
async function compile(kernels) {
  const found = await navigator.gpu?.requestAdapter();
  if (!found) return { wrong: ['there is no WebGPU adapter'], tried: 0, name: '' };
  const f16 = found.features.has('shader-f16');
  const device = await found.requestDevice({ requiredFeatures: f16 ? ['shader-f16'] : [] });
  const wrong = [];
  let tried = 0;
  for (const kernel of kernels.filter((kernel) => f16 || !kernel.f16)) {
    tried += 1;
    const module = device.createShaderModule({ code: kernel.text });
    for (const message of (await module.getCompilationInfo()).messages) {
      wrong.push(`${kernel.label}: ${message.type} at ${message.lineNum}:${message.linePos}: ${message.message}`);
    }
    const compute = { module, entryPoint: 'main', constants: kernel.constants };
    await device.createComputePipelineAsync({ layout: 'auto', compute }).catch((error) => {
      wrong.push(`${kernel.label}: ${error.message}`);
    });
  }
  return { wrong, tried, name: `${found.info.vendor} ${found.info.description}` };
}

// WebGPU is there only for pages from a server.
const server = createServer((_, response) => response.end('<!doctype html>')).listen(0, '127.0.0.1');
const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--enable-unsafe-webgpu', '--no-first-run', '--disable-background-networking',
    ...(adapter === 'swiftshader' ? ['--use-webgpu-adapter=swiftshader'] : [])],
});
const page = await browser.newPage();
await page.goto(`http://127.0.0.1:${server.address().port}/`);
const { wrong, tried, name } = await page.evaluate(compile, kernels);
await browser.close();
server.close();
for (const line of wrong) console.error(line);
console.log(`${tried} of ${kernels.length} kernels on ${name}: ${wrong.length} complaints`);
process.exit(wrong.length || !tried ? 1 : 0);

// Builds the page into a folder, ./build if none is given: what package web embeds.
import { copyFile, mkdir } from 'node:fs/promises'
import { build } from 'esbuild'

const out = process.argv[2] ?? 'build'
await mkdir(out, { recursive: true })
await build({
	entryPoints: { page: 'src/main.tsx', style: 'src/style.css' },
	outdir: out,
	bundle: true,
	minify: true,
	format: 'esm',
	target: 'es2022',
	jsx: 'automatic',
	jsxImportSource: 'preact',
	legalComments: 'eof', // the licence of Preact
	logLevel: 'warning',
})
for (const name of ['index.html', 'icon.svg']) await copyFile(`src/${name}`, `${out}/${name}`)

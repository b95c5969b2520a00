import assert from 'node:assert/strict'
import { test } from 'node:test'
import { build } from 'esbuild'

const { outputFiles } = await build({ entryPoints: ['src/json.ts'], write: false, format: 'esm' })
const { indented, member } = await import(`data:text/javascript,${encodeURIComponent(outputFiles[0].text)}`)

test('a member is cut from JSON as it is written', () => {
	const json = ' {"a":1, "payload" : {"size":9007199254740993,"a,b}":"\\"}","n":[1.10,{}],"n":2} ,"b":[],"\\u0063":"x" } '
	const want = {
		a: '1', payload: '{"size":9007199254740993,"a,b}":"\\"}","n":[1.10,{}],"n":2}', b: '[]', c: '"x"',
		size: undefined, x: undefined,
	}
	for (const [name, text] of Object.entries(want)) assert.equal(member(json, name), text, name)
	assert.equal(member('[{"a":1}]', 'a'), undefined)
	assert.equal(member('"a"', 'a'), undefined)
	assert.equal(member('', 'a'), undefined)
})

test('JSON is indented, and nothing else of it changes', () => {
	const json = '{"big":9007199254740993,"e":1.10e+3,"t":" {\\"a\\":[1,2]} ","none":{},"no":[ ],"l":[1,{"a":null}],"big":1}'
	assert.equal(indented(json).replaceAll(/\n */g, '').replaceAll(/"(\w+)": /g, '"$1":'), json.replace('[ ]', '[]'))
	for (const value of ['{"a":[1,{"b":"c"}],"d":{},"e":[]}', '[]', '1', '"x:,"', '{"a":{"b":[[]]}}']) {
		assert.equal(indented(value), JSON.stringify(JSON.parse(value), null, 2))
	}
})

// Parts of a JSON text as they are written: JSON.parse rounds numbers, and keeps only the last of repeated members.

const tokens = /"(?:[^"\\]|\\.)*"|[^\s"{}[\],:]+|[{}[\],:]/g
const opens = (token?: string) => token === '{' || token === '['
const closes = (token?: string) => token === '}' || token === ']'

/** The text of the value of a member; undefined if the object has no such member. */
export function member(object: string, name: string): string | undefined {
	let depth = 0
	let before = ''
	let begin = -1
	for (const { 0: token, index } of object.matchAll(tokens)) {
		if (closes(token)) depth--
		if (begin >= 0 && (depth === 0 || (depth === 1 && token === ','))) return object.slice(begin, index).trim()
		if (begin < 0 && depth === 1 && token === ':' && JSON.parse(before) === name) begin = index + 1
		if (opens(token)) depth++
		before = token
	}
}

/** The same JSON with line breaks and indents. */
export function indented(json: string): string {
	let depth = 0
	const line = () => `\n${'  '.repeat(depth)}`
	const all = json.match(tokens) ?? []
	return all
		.map((token, i) => {
			if (token === ':') return ': '
			if (token === ',') return token + line()
			if (opens(token) && !closes(all[i + 1])) {
				depth++
				return token + line()
			}
			if (closes(token) && !opens(all[i - 1])) {
				depth--
				return line() + token
			}
			return token
		})
		.join('')
}

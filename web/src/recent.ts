// The workspaces that this browser opened last.
const key = 'tidemark.recent'
const most = 10

export function recent(): string[] {
	try {
		const ids: unknown = JSON.parse(localStorage.getItem(key) ?? '[]')
		return Array.isArray(ids) ? ids.filter(id => typeof id === 'string') : []
	} catch {
		return []
	}
}

export function opened(workspace: string) {
	keep([workspace, ...recent().filter(id => id !== workspace)].slice(0, most))
}

export const forget = () => keep([])

function keep(ids: string[]) {
	try {
		localStorage.setItem(key, JSON.stringify(ids))
	} catch {
		// the browser keeps nothing: the list stays empty
	}
}

// The page's addresses are in the fragment: the server serves one document, and its log has no ids.
import { Store } from './store'

export interface Route {
	name: 'home' | 'workspace' | 'file' | 'live' | 'health'
	workspace: string
	file: string
	query: URLSearchParams
}

export function parse(hash: string): Route {
	const [path, query] = hash.replace(/^#?\/?/, '').split('?', 2)
	const [first, workspace, third, file] = path.split('/').map(decode)
	const route = (name: Route['name']): Route => ({
		name,
		workspace: workspace ?? '',
		file: file ?? '',
		query: new URLSearchParams(query),
	})
	if (first === 'health') return route('health')
	if (first !== 'workspaces' || !workspace) return route('home')
	if (third === 'live') return route('live')
	if (third === 'files' && file) return route('file')
	return route('workspace')
}

function decode(part: string): string {
	try {
		return decodeURIComponent(part)
	} catch {
		return part
	}
}

export const homeLink = '#/'
export const healthLink = '#/health'
export const workspaceLink = (workspace: string, query: Record<string, string> = {}) => {
	const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ''))
	return `#/workspaces/${encodeURIComponent(workspace)}${given.size ? `?${given}` : ''}`
}
export const liveLink = (workspace: string) => `${workspaceLink(workspace)}/live`
export const fileLink = (workspace: string, file: string) =>
	`${workspaceLink(workspace)}/files/${encodeURIComponent(file)}`

/** The address that Esc leads to. */
export function above(route: Route): string {
	switch (route.name) {
		case 'file':
		case 'live':
			return workspaceLink(route.workspace)
		default:
			return homeLink
	}
}

export const route = new Store(parse(location.hash))
addEventListener('hashchange', () => route.set(parse(location.hash)))

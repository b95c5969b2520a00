// The page's addresses are in the fragment: the server serves one document, and its log has no ids.
import { Store } from './store'

export interface Route {
	name: 'home' | 'workspace' | 'file' | 'live' | 'event' | 'health' | 'reasons' | 'entries' | 'entry' | 'job'
	workspace: string
	id: string // of the file, dead letter or job; the position of an event
	query: URLSearchParams
}

export function parse(hash: string): Route {
	const [path, query] = hash.replace(/^#?\/?/, '').split('?', 2)
	const parts = path.split('/').map(decode)
	const [first, workspace, third, id] = parts
	const route = (name: Route['name']): Route => ({
		name,
		workspace: workspace ?? '',
		id: id ?? '',
		query: new URLSearchParams(query),
	})
	if (first === 'health') return route('health')
	if (first === 'dead-letters') return deadLetters(parts, new URLSearchParams(query))
	if (first !== 'workspaces' || !workspace) return route('home')
	if (third === 'live') return route('live')
	if (third === 'files' && id) return route('file')
	if (third === 'events' && id) return route('event')
	return route('workspace')
}

function deadLetters([, entry, job]: string[], query: URLSearchParams): Route {
	const route = (name: Route['name'], id = ''): Route => ({ name, workspace: '', id, query })
	if (entry === 'jobs' && job) return route('job', job)
	if (entry) return route('entry', entry)
	return query.has('each') ? route('entries', `${query}`) : route('reasons')
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
export const deadLettersLink = '#/dead-letters'
/** The dead letters one by one, selected as in the API. */
export const entriesLink = (query: Record<string, string>) =>
	`${deadLettersLink}?${new URLSearchParams({ each: 'true', ...query })}`
export const entryLink = (entry: string) => `${deadLettersLink}/${encodeURIComponent(entry)}`
export const jobLink = (job: string) => `${deadLettersLink}/jobs/${encodeURIComponent(job)}`
export const workspaceLink = (workspace: string, query: Record<string, string> = {}) => {
	const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ''))
	return `#/workspaces/${encodeURIComponent(workspace)}${given.size ? `?${given}` : ''}`
}
export const liveLink = (workspace: string) => `${workspaceLink(workspace)}/live`
export const fileLink = (workspace: string, file: string) =>
	`${workspaceLink(workspace)}/files/${encodeURIComponent(file)}`

/** An event by its position. */
export const eventLink = (workspace: string, position: string) => `${workspaceLink(workspace)}/events/${position}`

/** The address that Esc leads to. */
export function above(route: Route): string {
	switch (route.name) {
		case 'file':
		case 'live':
		case 'event':
			return workspaceLink(route.workspace)
		case 'entries':
		case 'entry':
		case 'job':
			return deadLettersLink
		default:
			return homeLink
	}
}

export const route = new Store(parse(location.hash))
addEventListener('hashchange', () => route.set(parse(location.hash)))

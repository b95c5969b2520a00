// Requests to the query API, and the shapes of its answers: see docs/api.md.

/** A number of bytes, up to 2^63 - 1: as text, because numbers over 2^53 are rounded. */
export type Size = string

export interface Workspace {
	workspace_id: string
	files: number
	bytes: Size
	trashed: number
	by_type?: Record<string, number>
	members?: string[]
	events: number
	last_event_at?: string
	position?: string
}

export interface File {
	workspace_id: string
	file_id: string
	name?: string
	path?: string
	parent_id?: string
	size?: Size
	mime?: string
	hash?: string
	kind?: 'folder'
	status: 'active' | 'trashed'
	incomplete: boolean
	version: number
	position: string
	actor_id?: string
	last_event?: string
	last_event_id?: string
	created_at?: string
	updated_at?: string
	deleted_at?: string | null
}

/** A change of a file: of its version, by an event. */
export interface Version {
	version: number
	position: string
	at: string
	event: string
	event_id: string
	actor_id?: string
	late: boolean
	cause?: { event: string; folder_id: string; position: string } // what happened to a folder above it
	changed: Record<string, { from: unknown; to: unknown }>
}

export interface History {
	versions: Version[]
	next_cursor: string | null
	complete_from: string // position from which on all changes are kept
}

export interface FilePage {
	files: File[]
	next_cursor: string | null
}

export interface WorkspacePage {
	workspaces: Workspace[]
	next_cursor: string | null
}

export interface Change {
	op: 'upsert' | 'delete'
	version: number
	position?: string
	file?: File
	file_id?: string
}

export interface Partition {
	partition: number
	position?: string
	lag_records: number
	lag_seconds: number
	ready: boolean
}

export interface Status {
	ready: boolean
	reason?: string
	partitions: Partition[]
	duplicates?: number
	dead_lettered?: number
}

export interface Total {
	files: number
	bytes: Size
}

/** The greatest keys of a dimension, and all others together. */
export interface Ranked<T> {
	keys: { key: string | null; total: T }[]
	other?: T
}

/** What happened in an hour. */
export interface Hour {
	start: string
	events: number
	added: number
	updated: number
	deleted: number
	bytes_added: Size
	bytes_removed: Size
}

export interface Activity {
	from: string
	windows: Hour[] // those in which something happened
}

export interface Usage {
	totals: Total & { by: Record<string, Ranked<Total>> }
	activity: Activity
}

/** A Failure is an answer that is an error, or no answer: then its status is 0. */
export class Failure extends Error {
	constructor(
		readonly status: number,
		readonly code: string,
		readonly detail: string,
		readonly retryAfter = 0, // seconds
	) {
		super(detail)
	}

	/** Trying again later may help. */
	get temporary(): boolean {
		return this.status === 0 || this.status === 429 || this.status >= 502
	}
}

export const workspaces = 'v1/workspaces'
export const workspacePath = (id: string) => `${workspaces}/${escape(id)}`
export const filePath = (workspace: string, file: string) => `${workspacePath(workspace)}/files/${escape(file)}`
export const usagePath = (workspace: string) => `${workspacePath(workspace)}/usage?by=type,folder,actor&window=1h`

// A browser takes an escaped "." or ".." for a step in the path, so these two ids cannot be asked for.
const escape = (id: string) => encodeURIComponent(id)

const usual = 15_000 // milliseconds

/** What was thrown, as a Failure. */
export const failureOf = (error: unknown) =>
	error instanceof Failure ? error : new Failure(0, 'page', String(error))

export interface Asked<T> {
	signal?: AbortSignal
	timeout?: number // milliseconds
	parse?: (json: string) => T
}

/** Requests a path of the API. It throws a Failure, or an AbortError once the signal is aborted. */
export async function get<T>(path: string, asked: Asked<T> = {}): Promise<T> {
	// Dead letters have no size of their own, and in their records this would change numbers.
	const headers = path.startsWith(workspaces) ? { Accept: 'application/json;IEEE754Compatible=true' } : undefined
	return read(await send(path, { headers }, asked), asked)
}

/** Posts JSON. It throws a Failure. */
export async function post<T>(path: string, body: unknown): Promise<T> {
	const headers = { 'Content-Type': 'application/json' }
	return read<T>(await send(path, { method: 'POST', headers, body: JSON.stringify(body) }), {})
}

export async function remove(path: string): Promise<void> {
	await send(path, { method: 'DELETE' })
}

async function read<T>(response: Response, { signal, parse = JSON.parse }: Asked<T>): Promise<T> {
	try {
		return parse(await response.text())
	} catch (error) {
		throw signal?.aborted ? error : unreachable()
	}
}

/** Keeps a token as a cookie that scripts cannot read. */
export async function signIn(token: string): Promise<void> {
	await send('v1/session', { method: 'POST', headers: { Authorization: `Bearer ${token}` } })
}

export async function signOut(): Promise<void> {
	await remove('v1/session')
}

async function send(path: string, init: RequestInit, { signal, timeout = usual }: Asked<unknown> = {}) {
	const limit = AbortSignal.timeout(timeout)
	let response: Response
	try {
		response = await fetch(path, { ...init, signal: signal ? AbortSignal.any([signal, limit]) : limit })
	} catch (error) {
		throw signal?.aborted ? error : unreachable()
	}
	if (response.ok) return response
	const problem = (await response.json().catch(() => ({}))) as { code?: string; detail?: string }
	throw new Failure(
		response.status,
		problem.code ?? '',
		problem.detail ?? `the server answered ${response.status} ${response.statusText}`,
		Number(response.headers.get('Retry-After')) || 0,
	)
}

const unreachable = () => new Failure(0, 'unreachable', 'the server does not answer: is tidemark serve running?')

// What the page knows of the server: whether it answers, how far it is behind, and whether it wants a token.
import { type Failure, failureOf, get, type Status } from './api'
import { Store } from './store'

export interface Connection {
	failure?: Failure // of a request that is tried again
	answered?: number // time of the last answer
	status?: Status
	unknown?: Failure // of the last request for the status
}

export const connection = new Store<Connection>({})
export const signedOut = new Store(false)

const failing = new Map<string, Failure>() // by what was asked for

/** Notes how a request ended. What fails is asked for again, or forgotten. */
export function note(what: string, failure?: Failure) {
	if (failure?.status === 401) signedOut.set(true)
	if (failure?.temporary) failing.set(what, failure)
	else failing.delete(what)
	if (!failure) {
		for (const [other, { status }] of failing) if (status === 0) failing.delete(other) // the server answers again
	}
	publish(failure ? {} : { answered: Date.now() })
}

/** Forgets the failure of what is not asked for any more. */
export function forgetFailure(what: string) {
	if (failing.delete(what)) publish({})
}

function publish(news: Partial<Connection>) {
	connection.set({ ...connection.get(), ...news, failure: failing.values().next().value })
}

/** The failure of a request that is not repeated. */
export function refused(error: unknown): Failure {
	const failure = failureOf(error)
	if (failure.status === 401) signedOut.set(true)
	return failure
}

/** The greatest lag of the partitions, in seconds. */
export const lagOf = (status?: Status) => Math.max(0, ...(status?.partitions ?? []).map(p => p.lag_seconds))

/** Whether the lag is the time since the last answer of the brokers: it is, where no record is missing. */
export const isSilence = ({ partitions }: Status) => partitions.every(p => p.lag_records === 0)

const path = 'v1/status'
const pollEvery = 5_000
const pollWhileFailing = 2_000

/** Polls the status while the page is visible, and until the returned function is called. */
export function pollStatus(): () => void {
	const stop = new AbortController()
	let timer = 0
	const poll = async () => {
		clearTimeout(timer)
		if (document.hidden || signedOut.get()) return
		try {
			const status = await get<Status>(path, stop)
			connection.set({ ...connection.get(), status, unknown: undefined })
			note(path)
		} catch (error) {
			if (stop.signal.aborted) return
			const unknown = failureOf(error)
			connection.set({ ...connection.get(), unknown })
			note(path, unknown)
		}
		clearTimeout(timer)
		timer = setTimeout(poll, connection.get().failure ? pollWhileFailing : pollEvery)
	}
	const unfollow = signedOut.follow(() => void poll())
	document.addEventListener('visibilitychange', poll)
	void poll()
	return () => {
		stop.abort()
		clearTimeout(timer)
		unfollow()
		document.removeEventListener('visibilitychange', poll)
	}
}

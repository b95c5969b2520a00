import { useEffect, useRef, useState } from 'preact/hooks'
import { type Failure, failureOf, signIn, signOut } from './api'
import { connection, isSilence, lagOf, pollStatus, signedOut } from './connection'
import { Entries } from './entries'
import { Entry } from './entry'
import { Event } from './event'
import { File } from './file'
import { clock, duration, sentence } from './format'
import { Health, late } from './health'
import { Home } from './home'
import { Job } from './job'
import { keys, listen } from './keys'
import { Live } from './live'
import { Reasons } from './reasons'
import { forget } from './recent'
import { deadLettersLink, healthLink, homeLink, type Route, route } from './route'
import { useStore } from './store'
import { Workspace } from './workspace'

/** The links of the header, with the views that they lead to: first the one of the link itself. */
const places: [link: string, name: string, views: Route['name'][]][] = [
	[homeLink, 'Workspaces', ['home', 'workspace', 'file', 'live', 'event']],
	[healthLink, 'Health', ['health']],
	[deadLettersLink, 'Dead letters', ['reasons', 'entries', 'entry', 'job']],
]

const current = (view: number) => (view === 0 ? 'page' : view > 0 ? 'true' : undefined)

/** A new view is read from its heading, and the next Tab begins there. */
function focusHeading() {
	const heading = document.querySelector<HTMLElement>('main h1')
	heading?.setAttribute('tabindex', '-1')
	heading?.focus()
}

export function Shell() {
	const at = useStore(route)
	const out = useStore(signedOut)
	const help = useRef<HTMLDialogElement>(null)
	useEffect(() => pollStatus(), [])
	useEffect(() => listen(() => help.current?.showModal()), [])
	const view = `${at.name}/${at.workspace}/${at.id}`
	const before = useRef(view)
	useEffect(() => {
		document.title = title(at)
		if (view !== before.current) focusHeading()
		before.current = view
	}, [at])
	return (
		<>
			<header>
				<a class="name" href={homeLink}>
					tidemark
				</a>
				<nav aria-label="Main">
					{places.map(([link, name, views]) => (
						<a key={link} href={link} aria-current={current(views.indexOf(at.name))}>
							{name}
						</a>
					))}
				</nav>
				<button type="button" class="small" aria-label="Keys" onClick={() => help.current?.showModal()}>
					?
				</button>
				{!out && <SignOut />}
			</header>
			<Banner />
			<main>{out ? <SignIn /> : <View key={view} route={at} />}</main>
			<dialog ref={help} aria-labelledby="keys">
				<h2 id="keys">Keys</h2>
				<dl class="fields">
					{keys.map(([key, what]) => (
						<div key={key}>
							<dt>
								<kbd>{key}</kbd>
							</dt>
							<dd>{what}</dd>
						</div>
					))}
				</dl>
				<form method="dialog">
					<button type="button" onClick={() => help.current?.close()}>
						Close
					</button>
				</form>
			</dialog>
		</>
	)
}

function View({ route }: { route: Route }) {
	switch (route.name) {
		case 'workspace':
			return <Workspace route={route} />
		case 'file':
			return <File route={route} />
		case 'live':
			return <Live route={route} />
		case 'event':
			return <Event route={route} />
		case 'health':
			return <Health />
		case 'reasons':
			return <Reasons />
		case 'entries':
			return <Entries route={route} />
		case 'entry':
			return <Entry route={route} />
		case 'job':
			return <Job route={route} />
		default:
			return <Home />
	}
}

function title(at: Route): string {
	const parts = {
		home: ['Workspaces'],
		health: ['Health'],
		workspace: [at.workspace],
		file: [at.id, at.workspace],
		live: ['Live', at.workspace],
		event: [at.id, at.workspace],
		reasons: ['Dead letters'],
		entries: [at.query.get('reason') ?? 'all', 'Dead letters'],
		entry: [at.id, 'Dead letters'],
		job: [`Job ${at.id}`, 'Dead letters'],
	}
	return [...parts[at.name], 'tidemark'].join(' – ')
}

/** Says that what is shown may be old, why, and what to do. */
function Banner() {
	const { failure, answered, status } = useStore(connection)
	const out = useStore(signedOut)
	const lag = lagOf(status)
	let text = ''
	if (failure && !out) {
		const since = answered ? `What you see is from ${clock(answered)}` : 'There is nothing to show yet'
		text = `${sentence(failure.detail)} ${since}; the page tries again by itself.`
	} else if (status && lag > late && !out) {
		const why = isSilence(status)
			? `The brokers have not answered for ${duration(lag)}`
			: `Processing is ${duration(lag)} behind`
		text = `${why}: what you see may be that old.`
	}
	return (
		<div role="status" class={text ? 'banner' : ''}>
			{text && (
				<>
					<strong>Stale.</strong> {text} <a href={healthLink}>Health</a>
				</>
			)}
		</div>
	)
}

// Scripts cannot read the cookie, so the page remembers that it has set one.
const flag = 'tidemark.signed-in'

function SignIn() {
	const [token, setToken] = useState('')
	const [failure, setFailure] = useState<Failure>()
	const [busy, setBusy] = useState(false)
	const submit = async () => {
		setBusy(true)
		try {
			await signIn(token.trim())
			localStorage.setItem(flag, '1')
			signedOut.set(false)
		} catch (error) {
			setFailure(failureOf(error))
		}
		setBusy(false)
	}
	return (
		<form
			class="signin"
			onSubmit={event => {
				event.preventDefault()
				void submit()
			}}
		>
			<h1>Token needed</h1>
			<p>
				This server answers only with a token. Whoever runs it makes one with <code>tidemark token hash</code>, or your
				identity provider does. The browser keeps it for 12 hours, where scripts cannot read it.
			</p>
			<label>
				Token
				<input
					type="password"
					autocomplete="off"
					required
					value={token}
					onInput={event => setToken(event.currentTarget.value)}
					aria-invalid={failure ? true : undefined}
					aria-describedby="refusal"
				/>
			</label>
			<p id="refusal" class="refusal" role="alert">
				{failure && sentence(failure.detail)}
			</p>
			<button type="submit" disabled={busy}>
				Sign in
			</button>
		</form>
	)
}

function SignOut() {
	const [failed, setFailed] = useState(false)
	if (!localStorage.getItem(flag)) return null
	const leave = async () => {
		try {
			await signOut()
		} catch {
			setFailed(true) // the cookie is there still
			return
		}
		localStorage.removeItem(flag)
		forget()
		signedOut.set(true)
	}
	return (
		<button type="button" class="small" onClick={() => void leave()}>
			{failed ? 'No answer: sign out again' : 'Sign out'}
		</button>
	)
}

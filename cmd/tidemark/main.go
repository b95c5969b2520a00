// Command tidemark turns Fast.io file webhooks into the current state of every file, kept in Kafka and queryable over
// HTTP.
//
// Every command is in one binary, so that all agree on topics, keys and settings. Results go to stdout and logs to
// stderr. This package reads settings, wires the other packages and prints; it has no logic of events, topics or
// checks.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// A console has the streams of a command: results go to out, everything else to err. A command reads in only to ask a
// question.
type console struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// note prints a message that is not a result.
func (c console) note(format string, args ...any) {
	_, _ = fmt.Fprintf(c.err, format+"\n", args...) // nothing is left to report it to
}

// cli is the whole command line. A setting is declared in the command that uses it, or in a group that the command
// embeds.
type cli struct {
	Config configFile `help:"YAML file of settings, named like the flags. Flags and environment override it." placeholder:"FILE"`

	Dev     devCommand     `kong:"cmd,help='Run everything in one process, on an embedded broker unless --brokers is given.',set='replication=1',set='min_insync=1',set='log_level=warn',set='search_url=embedded',set='embedded=; or embedded',set='api_addr=127.0.0.1:8080',set='ingress_addr=127.0.0.1:5000',set='archive_window=1m',set='archive_dev=; none for no archive. Without it, the folder archive in --data, unless --brokers is given'"`
	Ingest  ingestCommand  `cmd:"" help:"Receive webhooks, verify them and produce them to the events topic."`
	Process processCommand `cmd:"" help:"Fold events into the state of every file and workspace."`
	Serve   serveCommand   `cmd:"" help:"Answer queries over HTTP."`
	Sink    sinkCommand    `cmd:"" help:"Deliver to other systems: search, notify, archive, model."`
	Topics  topicsCommand  `cmd:"" help:"Compare, create or copy the topics, and list the ACLs."`
	Send    sendCommand    `cmd:"" help:"Sign a test event and post it to the ingress."`
	Get     getCommand     `cmd:"" help:"Show the state of one file."`
	Ls      lsCommand      `cmd:"" help:"List the files of a workspace."`
	Search  searchCommand  `cmd:"" help:"Search the files of a workspace by words of name and path."`
	Changes changesCommand `cmd:"" help:"Print the changes of a workspace's files, and follow them."`
	Tail    tailCommand    `cmd:"" help:"Print the records of a topic."`
	Why     whyCommand     `cmd:"" help:"List the events of a file and the outcome of each."`
	Dlq     dlqCommand     `cmd:"" help:"List, show, replay or drop dead letters: events that could not be folded."`
	Replay  replayCommand  `cmd:"" help:"Replay past events: into the events topic, or into a table of its own to compare."`
	Diff    diffCommand    `cmd:"" help:"Compare the tables of two groups row by row."`
	Doctor  doctorCommand  `kong:"cmd,help='Check everything that an event passes, and name the cause of failures.',set='replication=0',set='min_insync=0',set='unset=; 0 for the default: 3 and 2, or 1 on a single broker'"`
	Notify  notifyCommand  `cmd:"" help:"Test the rules of the notify sink, or enable one."`
	Token   tokenCommand   `cmd:"" help:"Make a token, and its entry for --tokens-file."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go handleSignals(signals, cancel)
	os.Exit(run(ctx, os.Args[1:], console{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}

// handleSignals drains the process at the first signal, and kills it with the second. Both are read from one channel,
// so that the second is not lost however soon it comes.
func handleSignals(signals chan os.Signal, drain func()) {
	<-signals
	drain()
	second := <-signals
	signal.Stop(signals)
	if number, ok := second.(syscall.Signal); ok && syscall.Kill(os.Getpid(), number) == nil {
		return
	}
	os.Exit(1)
}

// run parses args, runs the command and returns the exit code.
func run(ctx context.Context, args []string, con console) int {
	helped := false
	parser, err := newParser(&cli{}, con, func(int) { helped = true })
	if err != nil {
		return fail(con, err)
	}
	if err := unsetEmpty(); err != nil {
		return fail(con, err)
	}
	parsed, err := parser.Parse(args)
	if helped { // --help has printed; errors of missing arguments do not matter
		return exitOK
	}
	if err != nil {
		return fail(con, err)
	}
	if err := checkAddresses(parsed); err != nil {
		return fail(con, err)
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return fail(con, parsed.Run(con))
}

func newParser(grammar *cli, con console, exit func(int)) (*kong.Kong, error) {
	return kong.New(grammar,
		kong.Name("tidemark"),
		kong.Description("tidemark turns Fast.io file webhooks into the current state of every file, kept in Kafka "+
			"and queryable over HTTP."),
		kong.Writers(con.out, con.err),
		kong.Exit(exit),
		kong.DefaultEnvars("TIDEMARK"),
		// overridden by dev and doctor
		kong.Vars{
			"roles": strings.Join(roleNames, ","), "replication": "3", "min_insync": "2", "unset": "",
			"log_level": "info", "search_url": "", "embedded": "",
			"archive_window": "10m", "archive_dev": "",
			"api_addr": ":8080", "ingress_addr": ":5000",
		},
		kong.ValueFormatter(explain),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
	)
}

// explain returns the help of a flag with its default, which kong leaves out, and its variable.
func explain(value *kong.Value) string {
	var notes []string
	if value.HasDefault && value.Default != "" {
		notes = append(notes, "default "+value.Default)
	}
	for _, env := range value.Tag.Envs {
		notes = append(notes, "$"+env)
	}
	if len(notes) == 0 {
		return value.Help
	}
	return strings.TrimSuffix(value.Help, ".") + " (" + strings.Join(notes, ", ") + ")."
}

// unsetEmpty unsets empty variables: compose files and CI systems pass ${NAME:-} for an unset one.
func unsetEmpty() error {
	for _, pair := range os.Environ() {
		if name, value, _ := strings.Cut(pair, "="); value == "" && strings.HasPrefix(name, "TIDEMARK_") {
			if err := os.Unsetenv(name); err != nil {
				return fmt.Errorf("unset %s: %w", name, err)
			}
		}
	}
	return nil
}

// A usageError is an invalid command line, variable or settings file.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// usagef formats a usageError.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// fail reports an error and returns its exit code.
func fail(con console, err error) int {
	if err == nil {
		return exitOK
	}
	con.note("tidemark: %v", err)
	// also from parsing: a missing file is not a usage error
	if _, noFile := errors.AsType[*fs.PathError](err); noFile {
		return exitFailed
	}
	if parse, misread := errors.AsType[*kong.ParseError](err); misread {
		con.note("See: %s --help", strings.TrimSpace("tidemark "+commandOf(parse.Context)))
		return exitUsage
	}
	if _, misuse := errors.AsType[usageError](err); misuse {
		return exitUsage
	}
	return exitFailed
}

// commandOf returns the command as far as it was parsed.
func commandOf(ctx *kong.Context) string {
	if ctx == nil {
		return ""
	}
	var names []string
	for _, step := range ctx.Path {
		if step.Command != nil {
			names = append(names, step.Command.Name)
		}
	}
	return strings.Join(names, " ")
}

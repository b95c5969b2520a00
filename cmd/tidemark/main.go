// Command tidemark turns Fast.io file webhooks into the current state of every file, kept in Kafka and queryable over HTTP.
//
// It promises one binary in which every command agrees on topics, keys and settings; results go to stdout and logs to stderr.
// It holds no rule of the domain and no Kafka client of its own making: it reads settings and wires the packages that do.
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

// The exit codes scripts rely on.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// A console is where a command reads and writes: results on out, all else on err. Only a command that asks a person reads in.
type console struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// note tells a person something that is no result.
func (c console) note(format string, args ...any) {
	_, _ = fmt.Fprintf(c.err, format+"\n", args...) // if it fails there is nobody left to tell
}

// cli is the whole command line. A setting is declared in the command that uses it, or in a group that the command embeds.
type cli struct {
	Config configFile `help:"YAML file of settings, named like the flags. Flags and environment win over it." placeholder:"FILE"`

	Dev     devCommand     `kong:"cmd,help='Run everything in one process, on an embedded broker unless --brokers is given.',set='replication=1',set='min_insync=1',set='log_level=warn'"`
	Ingest  ingestCommand  `cmd:"" help:"Receive webhooks, verify them and put them into the events topic."`
	Process processCommand `cmd:"" help:"Fold events into the state of every file and workspace."`
	Serve   serveCommand   `cmd:"" help:"Answer queries over HTTP."`
	Topics  topicsCommand  `cmd:"" help:"Compare the cluster's topics with what tidemark needs."`
	Send    sendCommand    `cmd:"" help:"Sign a test event and post it to the ingress."`
	Get     getCommand     `cmd:"" help:"Show the state of one file."`
	Ls      lsCommand      `cmd:"" help:"List the files of a workspace."`
	Tail    tailCommand    `cmd:"" help:"Print the records of a topic."`
	Why     whyCommand     `cmd:"" help:"List the events behind a file's row, and what became of each."`
	Dlq     dlqCommand     `cmd:"" help:"Look at what could not be folded, and replay or drop it."`
	Replay  replayCommand  `cmd:"" help:"Send events of the past through again: into their topic, or into a table to compare."`
	Diff    diffCommand    `cmd:"" help:"Compare the tables of two groups row by row."`
	Doctor  doctorCommand  `kong:"cmd,help='Check all that an event passes, and name the cause of what fails.',set='replication=0',set='min_insync=0',set='unset=; 0 for what the cluster can have, 3 and 2 or on a single broker 1'"`
	Version versionCommand `cmd:"" help:"Print which build this is."`
}

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go obey(signals, cancel)
	os.Exit(run(ctx, os.Args[1:], console{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}

// obey drains the process at the first signal, and ends it at once at the second, as that signal would have. Both come through
// one channel, so that the second is not lost however soon it comes.
func obey(signals chan os.Signal, drain func()) {
	<-signals
	drain()
	second := <-signals
	signal.Stop(signals)
	if number, ok := second.(syscall.Signal); ok && syscall.Kill(os.Getpid(), number) == nil {
		return
	}
	os.Exit(1)
}

// run is main without the process: it parses args, runs the command and returns the exit code.
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
	if helped { // --help has printed; parsing goes on and may miss arguments that nobody wanted
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
		kong.Description("tidemark turns Fast.io file webhooks into the current state of every file, kept in Kafka and queryable over HTTP."),
		kong.Writers(con.out, con.err),
		kong.Exit(exit),
		kong.DefaultEnvars("TIDEMARK"),
		kong.Vars{"roles": strings.Join(roleNames, ","), "replication": "3", "min_insync": "2", "unset": "", "log_level": "info"}, // dev sets its own
		kong.ValueFormatter(explain),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
	)
}

// explain is the help of a flag: what it does, its default and its variable. kong leaves the default out.
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

// unsetEmpty makes an empty variable an absent one, as compose files and CI systems mean it when they pass ${NAME:-}.
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

// A usageError is a command line, environment or file that says something impossible.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// usagef builds a usageError.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// fail is the one place that reports an error and turns it into an exit code.
func fail(con console, err error) int {
	if err == nil {
		return exitOK
	}
	con.note("tidemark: %v", err)
	if _, noFile := errors.AsType[*fs.PathError](err); noFile { // also when parsing met it: a missing file is no misuse
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

// commandOf returns the command as far as it was understood.
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

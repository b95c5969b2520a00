package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"tidemark/e2e/rig"
)

// A variant is a program with its settings that is compared.
type variant struct {
	name  string
	title string
	start func(c *contest, data string) started
}

// started has what is observed of a program: its consumer group, and the topic of its table.
type started struct {
	*rig.Program
	group, table string
}

// Names of the variants that others are compared with.
const (
	tidemarkOnce    = "tidemark-alo"
	tidemarkExactly = "tidemark-eos"
	streamsOnce     = "kstreams-alo"
	streamsExactly  = "kstreams-eos"
	franzBound      = "franz"
)

var variants = []variant{
	{tidemarkOnce, "tidemark, at_least_once", tidemark("at_least_once")},
	{streamsOnce, "Kafka Streams tuned, at_least_once", kafkaStreams("at_least_once", "linger=50", "commit=1000")},
	{tidemarkExactly, "tidemark, exactly_once", tidemark("exactly_once")},
	{
		streamsExactly, "Kafka Streams tuned, exactly_once_v2",
		kafkaStreams("exactly_once_v2", "linger=50", "commit=1000"),
	},
	{"goka", "goka, stock", stockGoka},
	{franzBound, "franz-go loop, the bound", franz()},
}

// prompt are those whose latency is measured. Kafka Streams is tuned for it: at the settings above it would wait for
// a batch of 50 ms, and with exactly_once_v2 for the commit of a second.
var prompt = []variant{
	variants[0],
	{streamsOnce, variants[1].title, kafkaStreams("at_least_once", "linger=1", "commit=1000")},
	variants[2],
	{streamsExactly, variants[3].title, kafkaStreams("exactly_once_v2", "linger=1", "commit=20")},
}

// selected returns the variants with some names, separated by commas; all of them if names is empty.
func selected(names string) (some []variant, err error) {
	if names == "" {
		return variants, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(variants, func(v variant) bool { return v.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no variant %q", name)
		}
		some = append(some, variants[i])
	}
	return some, nil
}

func tidemark(guarantee string) func(*contest, string) started {
	return func(c *contest, data string) started {
		p := c.program(c.binary, slices.Concat([]string{
			"process", "--groups", "files", "--guarantee", guarantee, "--instance-id", instance, "--data", data,
		}, c.flags())...)
		p.Admin = rig.FreeAddr()
		p.Args = append(p.Args, "--admin-addr", p.Admin)
		return c.inGroup(p)
	}
}

// kafkaStreams leaves half of the CPUs to its producers and the garbage collector: that was fastest on two. Its group
// is a new one each time, because its members do not leave.
func kafkaStreams(guarantee string, tuning ...string) func(*contest, string) started {
	return func(c *contest, data string) started {
		group := fmt.Sprintf("%s-streams%d", c.prefix, c.runs)
		p := c.program(c.java, "-Xms2g", "-Xmx2g", "-XX:+UseParallelGC", "-Dtidemark.level=warn",
			"-Dlog4j2.configurationFile="+c.streams.log, "-cp", c.streams.classpath, "Files",
			"brokers="+strings.Join(c.brokers, ","), "input="+c.topics.Events, "index="+c.topics.Index,
			"notify="+c.topics.Notify, "group="+group, "data="+data, "guarantee="+guarantee,
			fmt.Sprintf("threads=%d", max(1, runtime.NumCPU()/2)))
		p.Args = append(p.Args, tuning...)
		return started{p, group, group + "-files-changelog"}
	}
}

func stockGoka(c *contest, data string) started {
	return c.inGroup(c.program(c.goka, append(c.peerFlags(), "-data", data)...))
}

func franz(more ...string) func(*contest, string) started {
	return func(c *contest, _ string) started {
		flags := append(c.peerFlags(), "-table", c.topics.Files)
		return c.inGroup(c.program(c.franz, append(flags, more...)...))
	}
}

// inGroup is of a program that uses the names of tidemark's group and table, which are those that goka gives them.
func (c *contest) inGroup(p *rig.Program) started { return started{p, c.group(), c.topics.Files} }

// instance is tidemark's name in its group.
const instance = "bench"

// instanceName is that of one of several instances; of 0, that of the only one.
func instanceName(n int) string {
	if n == 0 {
		return instance
	}
	return fmt.Sprint(instance, n)
}

func (c *contest) peerFlags() []string {
	return []string{
		"-brokers", strings.Join(c.brokers, ","), "-input", c.topics.Events, "-index", c.topics.Index,
		"-notify", c.topics.Notify, "-group", c.group(),
	}
}

func (c *contest) program(path string, args ...string) *rig.Program {
	return &rig.Program{Name: filepath.Base(path), Path: path, Args: args, Log: filepath.Join(c.dir, "program.log")}
}

// peers are the built programs that tidemark is compared with.
type peers struct {
	goka, franz, java string
	streams           struct{ classpath, log string }
}

const (
	kstreams = "bench/peers/kstreams"
	jars     = ".cache/bench/kstreams" // fetched once
)

// build builds the peers. It must run in the root of the checkout.
func (p *peers) build(dir string) (err error) {
	if p.goka, err = rig.Build(dir, "tidemark/bench/peers/goka"); err != nil {
		return err
	}
	if p.franz, err = rig.Build(dir, "tidemark/bench/peers/franz"); err != nil {
		return err
	}
	if p.java, err = exec.LookPath("java"); err != nil {
		return err
	}
	if err := fetchJars(); err != nil {
		return err
	}
	sources, err := filepath.Glob(kstreams + "/*.java")
	if err != nil || len(sources) == 0 {
		return errors.Join(fmt.Errorf("no %s/*.java: run this in the root of the checkout", kstreams), err)
	}
	classes := filepath.Join(dir, "classes")
	if err := command("javac", append([]string{"-d", classes, "-cp", jars + "/*"}, sources...)...); err != nil {
		return fmt.Errorf("%w\na JDK 17 or newer is needed (Debian: apt install openjdk-17-jdk-headless)", err)
	}
	root, err := os.Getwd()
	p.streams.classpath = classes + ":" + filepath.Join(root, jars) + "/*"
	p.streams.log = filepath.Join(root, "deploy/kafka/log4j2.properties")
	return err
}

// fetchJars fetches Kafka Streams unless the same pom.xml was fetched before.
func fetchJars() error {
	pom, err := os.ReadFile(kstreams + "/pom.xml")
	if err != nil {
		return err
	}
	complete := filepath.Join(jars, "complete")
	if have, err := os.ReadFile(complete); err == nil && string(have) == string(pom) {
		return nil
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(jars), os.MkdirAll(jars, 0o755)); err != nil {
		return err
	}
	err = command("mvn", "--quiet", "--batch-mode", "--file", kstreams+"/pom.xml",
		"org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies",
		"-DoutputDirectory="+filepath.Join(root, jars))
	if err != nil {
		return fmt.Errorf("fetch Kafka Streams: %w", err)
	}
	return os.WriteFile(complete, pom, 0o600)
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

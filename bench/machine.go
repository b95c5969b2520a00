package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tidemark/e2e/rig"
)

// A load is CPU time that was used since the machine, or the process, started.
type load struct{ machine, broker, self time.Duration }

// loadNow reads /proc. The machine's part includes what a hypervisor gave to others: it is missing here as well.
func loadNow(broker int) (l load, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return l, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(first) {
		switch i {
		case 1, 2, 3, 6, 7, 8: // user, nice, system, irq, softirq, steal: see proc(5)
			l.machine += ticks(field)
		}
	}
	if l.broker, err = cpuOf(strconv.Itoa(broker)); err != nil {
		return l, fmt.Errorf("the broker's process: %w", err)
	}
	l.self, err = cpuOf("self")
	return l, err
}

func cpuOf(pid string) (time.Duration, error) {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	return ticks(fields[11]) + ticks(fields[12]), nil // utime and stime
}

func ticks(field string) time.Duration {
	n, _ := strconv.Atoi(field) // the kernel writes numbers
	return time.Duration(n) * 10 * time.Millisecond
}

// foreign is the share of the machine's CPUs that neither the client, the broker nor the benchmark used.
func foreign(before, after load, client, wall time.Duration) float64 {
	others := (after.machine - before.machine) - (after.broker - before.broker) - (after.self - before.self) - client
	return others.Seconds() / (wall.Seconds() * float64(runtime.NumCPU()))
}

// A span is what programs and the broker used between two moments.
type span struct {
	Seconds   float64 `json:"seconds"`
	CPU       float64 `json:"cpu_s"`
	BrokerCPU float64 `json:"broker_cpu_s"`
	PeakRSSMB float64 `json:"peak_rss_mb"` // of all programs, since their start
	Foreign   float64 `json:"foreign_cpu_share"`
}

func (s span) others() float64 { return s.Foreign }

// An observation began at a moment.
type observation struct {
	programs  []*rig.Program
	brokerPID int
	begin     time.Time
	cpu       time.Duration
	load      load
}

// observe begins. Programs may be started afterwards. Without programs, those count that end meanwhile.
func observe(brokerPID int, programs ...*rig.Program) (o *observation, err error) {
	o = &observation{programs: programs, brokerPID: brokerPID, begin: time.Now()}
	o.cpu, _ = o.usage()
	o.load, err = loadNow(brokerPID)
	return o, err
}

func (o *observation) usage() (cpu time.Duration, peakMB float64) {
	if len(o.programs) == 0 {
		var ended syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &ended); err == nil {
			cpu = time.Duration(ended.Utime.Nano() + ended.Stime.Nano())
		}
		return cpu, 0
	}
	for _, p := range o.programs {
		used := p.Usage()
		cpu, peakMB = cpu+used.CPU, peakMB+used.PeakMB
	}
	return cpu, peakMB
}

func (o *observation) end() (s span, err error) {
	took := time.Since(o.begin)
	cpu, peakMB := o.usage()
	now, err := loadNow(o.brokerPID)
	return span{
		Seconds: per(took.Seconds(), 1), CPU: per((cpu - o.cpu).Seconds(), 1),
		BrokerCPU: per((now.broker - o.load.broker).Seconds(), 1), PeakRSSMB: per(peakMB, 1),
		Foreign: per(foreign(o.load, now, cpu-o.cpu, took), 1),
	}, err
}

// folderMB is what the files in a folder have; 0 if there is none.
func folderMB(dir string) (mb float64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			mb += float64(info.Size()) / 1e6
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return per(mb, 1), err
}

// firstLine is that of what a command prints, or of its failure.
func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return err.Error()
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(first)
}

func describeCommit() string { return "commit " + firstLine("git", "describe", "--always", "--dirty") }

// describeMachine is what a reader must know of where the figures come from.
func describeMachine() []string {
	field := func(file, name string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			return err.Error()
		}
		_, rest, _ := strings.Cut(string(text), name)
		value, _, _ := strings.Cut(strings.TrimLeft(rest, "\t :"), "\n")
		return value
	}
	return []string{
		fmt.Sprintf("%d CPUs (%s), memory %s", runtime.NumCPU(),
			field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal")),
		"Linux " + firstLine("uname", "-r") + ", " + runtime.Version() + ", " + firstLine("java", "-version"),
	}
}

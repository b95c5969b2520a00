package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
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

// describeMachine is what a reader must know of where the figures come from.
func describeMachine() []string {
	line := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return err.Error()
		}
		first, _, _ := strings.Cut(string(out), "\n")
		return strings.TrimSpace(first)
	}
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
		"Commit " + line("git", "describe", "--always", "--dirty") + ", " + time.Now().UTC().Format("2006-01-02"),
		fmt.Sprintf("%d CPUs (%s), memory %s", runtime.NumCPU(),
			field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal")),
		"Linux " + line("uname", "-r") + ", " + runtime.Version() + ", " + line("java", "-version"),
	}
}

package rig

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// A Usage is what a program takes of the machine; all of it is zero when the program does not run.
type Usage struct {
	CPU           time.Duration // since its start
	RSSMB, PeakMB float64       // resident memory, in MB
	Stopped       bool          // by SIGSTOP
}

// Usage reads /proc.
func (p *Program) Usage() (u Usage) {
	process, _ := p.running()
	if process == nil {
		return u
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process.Pid)); err == nil {
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		u.Stopped = fields[0] == "T"
		for _, field := range fields[11:13] { // utime and stime: see proc(5)
			ticks, _ := strconv.Atoi(field) // the kernel writes numbers
			u.CPU += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process.Pid)); err == nil {
		u.RSSMB, u.PeakMB = megabytes(string(b), "VmRSS:"), megabytes(string(b), "VmHWM:")
	}
	return u
}

// TotalCPU is what the last run used until it ended, as wait4 returned it.
func (p *Program) TotalCPU() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.cmd.ProcessState == nil {
		return 0
	}
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

func megabytes(status, name string) float64 {
	_, after, _ := strings.Cut(status, name)
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0 // it is ending
	}
	kb, _ := strconv.ParseFloat(fields[0], 64) // the kernel writes numbers
	return kb / 1024
}

// Ports returns the local ports of the program's TCP connections. They are not known without /proc.
func (p *Program) Ports() (ports map[int]bool, known bool) {
	process, _ := p.running()
	if process == nil {
		return nil, false
	}
	return PortsOf(process.Pid)
}

// PortsOf returns the local ports of a process.
func PortsOf(pid int) (ports map[int]bool, known bool) {
	proc := fmt.Sprintf("/proc/%d/", pid)
	files, err := os.ReadDir(proc + "fd")
	if err != nil {
		return nil, false
	}
	own := map[string]bool{} // inodes
	for _, file := range files {
		target, _ := os.Readlink(proc + "fd/" + file.Name()) // it may have been closed meanwhile
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	ports = map[int]bool{}
	for _, table := range []string{"net/tcp", "net/tcp6"} { // Java's sockets are of the second kind
		text, err := os.ReadFile(proc + table)
		if err != nil {
			continue // a kernel without it, or a process that has ended
		}
		known = true
		for line := range strings.Lines(string(text)) {
			// See proc(5): the second field is the local address in hexadecimal, the tenth the inode.
			fields := strings.Fields(line)
			if len(fields) < 10 || !own[fields[9]] {
				continue
			}
			_, port, _ := strings.Cut(fields[1], ":")
			if n, err := strconv.ParseInt(port, 16, 32); err == nil {
				ports[int(n)] = true
			}
		}
	}
	return ports, known
}

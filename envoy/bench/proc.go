package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is the unit of times in /proc/PID/stat: USER_HZ, 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// cpuTime is the processor time that a process has used in all its threads. It reads the scheduler's statistics, which are in
// nanoseconds, or ticks where the kernel does not have them.
func cpuTime(pid int) (time.Duration, error) {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	if len(stats) == 0 {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		return parseStat(raw)
	}
	var sum time.Duration
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			return 0, err
		}
		d, err := parseSchedstat(raw)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += d
	}
	return sum, nil
}

// parseSchedstat reads the first of a thread's three numbers: nanoseconds on a processor.
func parseSchedstat(raw []byte) (time.Duration, error) {
	first, _, _ := strings.Cut(string(raw), " ")
	ns, err := strconv.ParseInt(first, 10, 64)
	return time.Duration(ns), err
}

// parseStat reads utime and stime, fields 14 and 15 of proc_pid_stat(5). Field 2, the program's name, may contain anything.
func parseStat(raw []byte) (time.Duration, error) {
	after := bytes.LastIndexByte(raw, ')')
	fields := strings.Fields(string(raw[after+1:]))
	if after < 0 || len(fields) < 13 {
		return 0, fmt.Errorf("not a stat file: %q", raw)
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// residentBytes is the resident memory of a process.
func residentBytes(pid int) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	text, err := field(raw, "VmRSS")
	if err != nil {
		return 0, err
	}
	kb, err := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	return kb << 10, err
}

// writtenBytes is what a process caused to be written to disk: whole pages, each time one becomes dirty.
func writtenBytes(pid int) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	text, err := field(raw, "write_bytes")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// field is the value of the first line "name: value".
func field(raw []byte, name string) (string, error) {
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("no line %q", name)
}

// machine describes the machine and its load in one line.
func machine() string {
	model := runtime.GOARCH
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m, err := field(raw, "model name"); err == nil {
			model = m
		}
	}
	first := func(path string) string {
		raw, _ := os.ReadFile(path) // left out if it cannot be read
		word, _, _ := strings.Cut(strings.TrimSpace(string(raw)), " ")
		return word
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, %s, load before the run %s",
		model, runtime.NumCPU(), first("/proc/sys/kernel/osrelease"), runtime.Version(), first("/proc/loadavg"))
}

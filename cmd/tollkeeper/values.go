package main

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// durationForm is days, and then what Go reads, one of them at least.
var durationForm = regexp.MustCompile(`^(?:(\d{1,5})d)?([0-9.]+(?:h|m|s|ms).*)?$`)

// parseDuration reads a duration with days as well: 30d, 12h, 1d12h.
func parseDuration(flag, s string) (time.Duration, error) {
	wrong := usagef("--%s %q: want a duration such as 30d, 12h or 90m", flag, s)
	parts := durationForm.FindStringSubmatch(s)
	if parts == nil || s == "" {
		return 0, wrong
	}
	var d time.Duration
	if parts[1] != "" {
		days, err := strconv.Atoi(parts[1])
		if err != nil {
			return 0, wrong
		}
		d = time.Duration(days) * 24 * time.Hour
	}
	if parts[2] != "" {
		rest, err := time.ParseDuration(parts[2])
		if err != nil {
			return 0, wrong
		}
		d += rest
	}
	return d, nil
}

// parseTime reads an instant (RFC 3339) or a date, which is its first instant in the local zone.
func parseTime(flag, s string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	t, err := time.ParseInLocation(time.DateOnly, s, time.Local)
	if err != nil {
		return time.Time{}, usagef("--%s %q: want a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z", flag, s)
	}
	return t, nil
}

// instant reads a pair of flags of which one names an instant and the other a time from now.
func instant(at, in, atFlag, inFlag string) (time.Time, error) {
	switch {
	case at != "" && in != "":
		return time.Time{}, usagef("give --%s or --%s, not both", atFlag, inFlag)
	case at != "":
		return parseTime(atFlag, at)
	case in != "":
		d, err := parseDuration(inFlag, in)
		return time.Now().Add(d), err
	}
	return time.Time{}, nil
}

// pairs reads name=value flags.
func pairs(flag string, list []string) (map[string]any, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := make(map[string]any, len(list))
	for _, s := range list {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, usagef("--%s %q: want name=value", flag, s)
		}
		out[name] = value
	}
	return out, nil
}

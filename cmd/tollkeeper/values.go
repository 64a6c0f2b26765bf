package main

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// durationForm is days followed by a Go duration; one of the two may be absent.
var durationForm = regexp.MustCompile(`^(?:(\d{1,5})d)?([0-9.]+(?:h|m|s|ms).*)?$`)

// parseDuration reads a duration, which may have days: 30d, 12h, 1d12h.
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

// partOfDay says which end of a day a date means.
type partOfDay bool

const (
	startOfDay partOfDay = false // for a time at which a range begins
	endOfDay   partOfDay = true  // for a time at which a range ends
)

// parseTime reads an instant (RFC 3339) or a date, which means the start or the end of that day in the local zone.
func parseTime(flag, s string, part partOfDay) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	t, err := time.ParseInLocation(time.DateOnly, s, time.Local)
	if err != nil {
		return time.Time{}, usagef("--%s %q: want a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z", flag, s)
	}
	if part == endOfDay {
		return time.Date(t.Year(), t.Month(), t.Day(), 23, 59, 59, 0, time.Local), nil
	}
	return t, nil
}

// expiry reads the two flags that say when a key expires. It returns zero if neither is given.
func expiry(at, in string) (time.Time, error) {
	switch {
	case at != "" && in != "":
		return time.Time{}, usagef("give --expires-at or --expires-in, not both")
	case at != "":
		return parseTime("expires-at", at, endOfDay)
	case in != "":
		d, err := parseDuration("expires-in", in)
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

// metaPatch makes a merge patch from the flags --meta and --unset, nil if nothing changes.
func metaPatch(set, unset []string) (map[string]any, error) {
	patch, err := pairs("meta", set)
	if err != nil {
		return nil, err
	}
	for _, name := range unset {
		if _, both := patch[name]; both || name == "" {
			return nil, usagef("--unset %q: want a name that is not set with --meta", name)
		}
		if patch == nil {
			patch = make(map[string]any)
		}
		patch[name] = nil
	}
	return patch, nil
}

// metaFlags adds the two flags that change meta.
func metaFlags(f *pflag.FlagSet, set, unset *[]string) {
	f.StringArrayVar(set, "meta", nil, "name=value to set in meta; others stay (repeatable)")
	f.StringArrayVar(unset, "unset", nil, "name to remove from meta (repeatable)")
}

package lint

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What keeps the server from starting is judged by the server. The rules of this file give it a place.

// StartFault is why a server would not start, as the server itself says.
type StartFault struct {
	Field string // of the configuration, such as tokens.issuers[0]
	Text  string
	File  bool // a file that the field names cannot be read
}

// ownFiles: files that the configuration names and that cannot be read.
func ownFiles(in *Input, report func(Finding)) {
	in.ofHere(func(o *Own, s *State) {
		for _, f := range s.Faults {
			if f.File && !strings.HasPrefix(f.Field, "tls.") {
				report(o.field(f.Field).says("%s", f.Text))
			}
		}
		for i, x := range o.Config.Tokens.Issuers { // without them the server starts, and waits for them
			if x.JWKSFile == "" {
				continue
			}
			if f, err := os.Open(x.JWKSFile); err != nil {
				report(o.at("tokens", "issuers").index(i).at("jwks_file").says("%v", err))
			} else {
				_ = f.Close()
			}
		}
	})
}

// ownStart: whatever else keeps the server from starting.
func ownStart(in *Input, report func(Finding)) {
	var certificate bool
	certUnusable(in, func(Finding) { certificate = true })
	for _, o := range in.owns {
		var faults []StartFault
		switch {
		case o.state != nil:
			faults = o.state.Faults
		case o.fault == nil && in.opt.Usable != nil:
			faults = in.opt.Usable(&o.Config)
		}
		for _, f := range faults {
			isTLS := strings.HasPrefix(f.Field, "tls.")
			if f.File && !isTLS || isTLS && certificate {
				continue // which another rule says
			}
			report(o.field(f.Field).says("%s", f.Text))
		}
	}
}

var place = regexp.MustCompile(`^(\w+)\[(\d+)\]$`)

// field is where a field is set, by its path.
func (o *Own) field(path string) spot {
	names := strings.Split(path, ".")
	if !slices.ContainsFunc(names, place.MatchString) {
		return o.at(names...)
	}
	s := o.spot
	for _, name := range names {
		m := place.FindStringSubmatch(name)
		if m == nil {
			s = s.at(name)
			continue
		}
		n, _ := strconv.Atoi(m[2])
		s = s.at(m[1]).index(n)
	}
	return s
}

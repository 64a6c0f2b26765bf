package rulebook

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/route"
	"github.com/tollkeeper-authz/tollkeeper/authz/route/openapi"
)

// Codes of faults of the data that the server reads.
const (
	faultPlan   = "plan_error"
	faultReason = "reason_error"
	faultRoute  = "route_error"
	faultName   = "name_error"
)

// faults collects what is wrong with the data of a policy, with its place.
type faults struct {
	policy *policy.Policy
	list   []bundle.Fault
}

// add adds a fault at a path below data.tollkeeper.
func (f *faults) add(code string, at []any, text string) {
	f.list = append(f.list, f.at(code, at, text))
}

func (f *faults) at(code string, at []any, text string) bundle.Fault {
	out := bundle.Fault{Code: code, Text: text}
	out.File, out.Line, out.Column = f.policy.Locate(append([]any{"tollkeeper"}, at...)...)
	return out
}

func (f *faults) data(name string) any {
	v, _ := f.policy.Data("tollkeeper", name)
	return v
}

// read are the names below data.tollkeeper that the server reads, or the shipped rules.
var read = []string{"routes", "paths", "unmatched", "plans", "reasons", "precedence", "profile"}

// empty refuses names with nothing after the colon, such as that of a list whose items are all commented out. It would mean
// the default, and nobody has written that.
func (f *faults) empty() {
	if !f.policy.Shipped() {
		return
	}
	for _, name := range read {
		if v, found := f.policy.Data("tollkeeper", name); found && v == nil {
			f.add(faultRoute, []any{name}, name+" has no value: write one, or remove the name")
		}
	}
}

// misplaced refuses data that was certainly meant to be read and is not: under a misspelt name, without tollkeeper above it, or
// in a folder, whose name is part of the path. Its routes would be no routes. Data that a rule reads is let be.
func (f *faults) misplaced(refs []bundle.Reference) {
	unread := func(path ...string) bool {
		return !slices.ContainsFunc(refs, func(r bundle.Reference) bool { return under(r.Path, append([]string{"data"}, path...)...) })
	}
	refuse := func(want string, path ...string) {
		at := make([]any, len(path))
		for i, name := range path {
			at[i] = name
		}
		out := bundle.Fault{Code: faultName, Text: fmt.Sprintf("nothing reads %s: write %s", strings.Join(path, "."), want)}
		out.File, out.Line, out.Column = f.policy.Locate(at...)
		f.list = append(f.list, out)
	}
	root, _ := f.policy.Data()
	top, _ := root.(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(top)) {
		switch {
		case name == "tollkeeper" || !f.policy.Shipped() || !unread(name):
		case near(name, "tollkeeper"):
			refuse("tollkeeper", name)
		case name == "routes" || name == "plans" || name == "reasons" || name == "unmatched":
			refuse("tollkeeper."+name, name)
		default:
			if path := ourNames(top[name], []string{name}); path != nil {
				refuse(strings.Join(path[slices.Index(path, "tollkeeper"):], ".")+", in a file that is in no folder", path...)
			}
		}
	}
	ours, _ := top["tollkeeper"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if slices.Contains(read, name) || !unread("tollkeeper", name) {
			continue
		}
		if path := ourNames(ours, []string{"tollkeeper"}); name == "tollkeeper" && path != nil {
			refuse(strings.Join(path[1:], ".")+": the folder has that name already", path...)
			continue
		}
		if i := slices.IndexFunc(read, func(want string) bool { return near(name, want) }); i >= 0 {
			refuse("tollkeeper."+read[i], "tollkeeper", name)
		}
	}
}

// maxFolders is how deep in folders ourNames looks.
const maxFolders = 4

// ourNames returns the path to a value below a name tollkeeper in folders, nil if there is none.
func ourNames(v any, at []string) []string {
	fields, _ := v.(map[string]any)
	if ours, ok := fields["tollkeeper"].(map[string]any); ok {
		for _, name := range read {
			if _, found := ours[name]; found {
				return append(slices.Clone(at), "tollkeeper", name)
			}
		}
	}
	if len(at) == maxFolders {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if path := ourNames(fields[name], append(slices.Clone(at), name)); path != nil {
			return path
		}
	}
	return nil
}

// near reports whether a name is probably a misspelling of another one.
func near(name, want string) bool {
	return levenshtein.ComputeDistance(strings.ToLower(name), want) <= 2
}

// under reports whether a path begins with some names.
func under(path []string, names ...string) bool {
	return len(path) >= len(names) && slices.Equal(path[:len(names)], names)
}

// table reads the routes. With faults there is no table.
func (f *faults) table(plans map[string][]authz.Limit) *route.Table {
	table, wrong := route.Parse(route.Spec{
		Routes: f.data("routes"), Paths: f.data("paths"), Unmatched: f.data("unmatched"), Plans: plans, OpenAPI: f.document,
	})
	for i := range wrong {
		if w := &wrong[i]; w.At != nil {
			f.add(faultRoute, w.At, w.Text)
		} else {
			f.list = append(f.list, bundle.Fault{File: w.File, Line: w.Line, Code: faultRoute, Text: w.Text})
		}
	}
	return table
}

// document reads an OpenAPI document that a route names.
func (f *faults) document(name string) ([]route.Imported, []route.Fault) {
	from, _, _ := f.policy.Locate("tollkeeper", "routes")
	name, _, _ = f.policy.Document(from, name) // it exists: see bundle.Compile
	operations, wrong := openapi.Read(name, func(name string) ([]byte, bool) {
		_, content, ok := f.policy.Document("", name)
		return content, ok
	})
	out, faults := make([]route.Imported, len(operations)), make([]route.Fault, len(wrong))
	for i, o := range operations {
		out[i] = route.Imported(o)
	}
	for i, w := range wrong {
		faults[i] = route.Fault{File: w.File, Line: w.Line, Text: w.Text}
	}
	return out, faults
}

// reasons reads data.tollkeeper.reasons, with the statuses of the policy's profile.
func (f *faults) reasons() map[authz.Reason]authz.ReasonInfo {
	data := f.data("reasons")
	table, ok := data.(map[string]any)
	if data != nil && !ok {
		f.add(faultReason, []any{"reasons"}, "reasons: want an object of reasons by code")
	}
	profile, isText := "strict", true
	if v := f.data("profile"); v != nil {
		if profile, isText = v.(string); !isText {
			f.add(faultReason, []any{"profile"}, "profile: want a text")
			return nil
		}
	}
	out := make(map[authz.Reason]authz.ReasonInfo, len(table))
	for _, code := range slices.Sorted(maps.Keys(table)) {
		info, field, err := parseReason(table[code], profile)
		switch {
		case err != nil:
		case !authz.ValidReason(code):
			err = errors.New("want 3 to 64 lower-case letters, digits and _ as a code")
		case info.Status == 402 && authz.Reason(code).Undecided():
			field, err = []any{"status", profile}, errors.New("402 would ask the caller to pay for a fault of ours")
		}
		if err != nil {
			f.add(faultReason, append([]any{"reasons", code}, field...), fmt.Sprintf("reason %q: %v", code, err))
		}
		out[authz.Reason(code)] = info
	}
	return out
}

// parseReason reads one reason. With an error it returns the field that is wrong.
func parseReason(v any, profile string) (info authz.ReasonInfo, field []any, err error) {
	m, ok := v.(map[string]any)
	if !ok {
		return info, nil, errors.New("want an object with status, title, remedy and retry")
	}
	statuses, _ := m["status"].(map[string]any)
	status, err := strconv.Atoi(fmt.Sprint(statuses[profile]))
	if err != nil || status < 400 || status > 599 {
		return info, []any{"status", profile}, fmt.Errorf("want a status from 400 to 599 for the profile %q", profile)
	}
	info = authz.ReasonInfo{Status: status, Retry: authz.RetryNever}
	info.Title, _ = m["title"].(string)
	info.Remedy, _ = m["remedy"].(string)
	if r, ok := m["retry"].(string); ok {
		info.Retry = authz.Retry(r)
	}
	if !slices.Contains([]authz.Retry{authz.RetryNever, authz.RetryReset, authz.RetrySoon}, info.Retry) {
		return info, []any{"retry"}, fmt.Errorf("retry %q: want never, reset or soon", info.Retry)
	}
	return info, nil, nil
}

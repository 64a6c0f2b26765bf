package lint

import (
	"encoding/json"
	"io"
	"net/url"
	"path/filepath"
	"strings"
)

// object is an object of JSON, list is a list.
type (
	object = map[string]any
	list   = []object
)

// WriteSARIF writes a report in SARIF 2.1.0 (OASIS), which code hosts show next to the lines of the findings.
func (r *Report) WriteSARIF(w io.Writer, version string) error {
	text := func(s string) object { return object{"text": s} }
	index := make(map[string]int)
	rules, results := list{}, list{}
	for i, rule := range Rules() {
		index[rule.ID] = i
		rules = append(rules, object{
			"id": rule.ID, "shortDescription": text(rule.Title), "fullDescription": text(rule.Title + " " + rule.Why), "help": text(rule.Remedy),
			"defaultConfiguration": object{"level": level(rule.Severity)},
		})
	}
	for _, f := range r.Findings {
		results = append(results, object{
			"ruleId": f.Rule, "ruleIndex": index[f.Rule], "level": level(f.Severity), "message": text(f.Wrong + ". " + f.Remedy),
			"locations": list{location(f)},
		})
	}
	driver := object{"name": "tollkeeper doctor", "informationUri": "https://github.com/tollkeeper-authz/tollkeeper", "rules": rules}
	if version != "" {
		driver["version"] = version
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(object{
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
		"runs": list{{"tool": object{"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}},
	})
}

// level is the name of a severity in SARIF.
func level(s Severity) string {
	if s == Info {
		return "note"
	}
	return string(s)
}

func location(f Finding) object {
	path := filepath.ToSlash(f.File)
	uri := (&url.URL{Path: path}).String()
	switch {
	case strings.Contains(path, "://"):
		uri = path
	case strings.HasPrefix(path, "/"):
		uri = (&url.URL{Scheme: "file", Path: path}).String()
	}
	physical := object{"artifactLocation": object{"uri": uri}}
	if f.Line > 0 {
		physical["region"] = object{"startLine": f.Line}
	}
	out := object{"physicalLocation": physical}
	logical := make(object)
	for key, value := range map[string]string{"name": f.Object, "fullyQualifiedName": f.Path} {
		if value != "" {
			logical[key] = value
		}
	}
	if len(logical) > 0 {
		out["logicalLocations"] = list{logical}
	}
	return out
}

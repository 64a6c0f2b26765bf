package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// stdlib is the name of Go's standard library in package URLs.
const stdlib = "stdlib"

// writeSBOM lists the modules in the binary as CycloneDX 1.6 JSON: those that the linker recorded, with the licences found
// in their source.
func writeSBOM(b binary, rel release) ([]byte, error) {
	sum := sha256.Sum256(b.data)
	self := component(cdx.ComponentTypeApplication, b.modules[0])
	self.Name = "tollkeeper"
	self.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}}
	self.Properties = &[]cdx.Property{{Name: "go:os", Value: "linux"}, {Name: "go:arch", Value: b.arch}}
	if rel.revision != "" {
		*self.Properties = append(*self.Properties, cdx.Property{Name: "vcs:revision", Value: rel.revision})
	}
	var parts []cdx.Component
	var refs []string
	for _, m := range b.modules[1:] {
		c := component(cdx.ComponentTypeLibrary, m)
		parts, refs = append(parts, c), append(refs, c.BOMRef)
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Timestamp: rel.created.Format(time.RFC3339), Component: &self}
	bom.Components = &parts
	bom.Dependencies = &[]cdx.Dependency{{Ref: self.BOMRef, Dependencies: &refs}}
	var buf bytes.Buffer
	err := cdx.NewBOMEncoder(&buf, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6)
	return buf.Bytes(), err
}

func component(kind cdx.ComponentType, m module) cdx.Component {
	purl := packageURL(m)
	c := cdx.Component{Type: kind, BOMRef: purl, PackageURL: purl, Name: m.path, Version: m.version}
	if ids := licenceIDs(m.texts); len(ids) > 0 {
		var choices cdx.Licenses
		for _, id := range ids {
			choices = append(choices, cdx.LicenseChoice{License: &cdx.License{ID: id, Acknowledgement: cdx.LicenseAcknowledgementConcluded}})
		}
		c.Licenses = &choices
	}
	if m.sum != "" {
		c.Properties = &[]cdx.Property{{Name: "go:sum", Value: m.sum}}
	}
	return c
}

// packageURL names a module for tools that look up vulnerabilities. The package URL specification wants golang paths in
// lower case.
func packageURL(m module) string {
	return "pkg:golang/" + strings.ToLower(m.path) + "@" + url.QueryEscape(m.version)
}

var (
	licenceFile = regexp.MustCompile(`(?i)^(un)?licen[cs]e|^copying|^notice|^patents`)
	spaces      = regexp.MustCompile(`\s+`)
)

// licenceTexts reads the licences and notices of a module, which have to be distributed with the binary.
func licenceTexts(dir string) (map[string][]byte, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	texts := make(map[string][]byte)
	for _, e := range entries {
		if !e.Type().IsRegular() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		if texts[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// licenceIDs identifies the licences of our dependencies by a unique sentence. It does not guess: a licence that it does not
// know has no id, and fails a test.
func licenceIDs(texts map[string][]byte) []string {
	ids := make(map[string]bool)
	for _, raw := range texts {
		text := spaces.ReplaceAllString(string(raw), " ")
		has := func(s string) bool { return strings.Contains(text, s) }
		ids["Apache-2.0"] = ids["Apache-2.0"] || has("Apache License Version 2.0") || has("Apache License, Version 2.0")
		ids["MIT"] = ids["MIT"] || has("Permission is hereby granted, free of charge, to any person obtaining a copy")
		ids["ISC"] = ids["ISC"] || has("Permission to use, copy, modify, and/or distribute this software for any purpose")
		ids["MPL-2.0"] = ids["MPL-2.0"] || has("Mozilla Public License Version 2.0")
		if has("Redistribution and use in source and binary forms") {
			ids["BSD-3-Clause"] = ids["BSD-3-Clause"] || has("Neither the name")
			ids["BSD-2-Clause"] = ids["BSD-2-Clause"] || !has("Neither the name")
		}
	}
	maps.DeleteFunc(ids, func(_ string, found bool) bool { return !found })
	return slices.Sorted(maps.Keys(ids))
}

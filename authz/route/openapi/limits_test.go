package openapi

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// largeDocument has n operations, each with a description, parameters and schemas as real documents have.
func largeDocument(n, description int) string {
	var b strings.Builder
	b.WriteString("openapi: 3.1.0\ninfo: {title: Large, version: '1'}\nservers: [{url: https://api.example.com/v1}]\nsecurity: [{oauth: [read]}]\npaths:\n")
	text := strings.Repeat("Lorem ipsum dolor sit amet. ", description)
	for i := range n / 5 {
		fmt.Fprintf(&b, "  /things%d/{id}:\n    parameters: [{$ref: '#/components/parameters/id'}]\n", i)
		for _, m := range []string{"get", "put", "post", "delete", "patch"} {
			fmt.Fprintf(&b, "    %s:\n      operationId: %sThing%d\n      description: >-\n        %s\n", m, m, i, text)
			fmt.Fprintf(&b, "      responses:\n        '200':\n          description: ok\n          content:\n            application/json:\n              schema: {$ref: '#/components/schemas/S%d'}\n", i)
		}
	}
	b.WriteString("components:\n  securitySchemes: {oauth: {type: oauth2}}\n  schemas:\n")
	for i := range n / 5 {
		fmt.Fprintf(&b, "    S%d:\n      type: object\n      properties:\n", i)
		for p := range 10 {
			fmt.Fprintf(&b, "        p%d: {type: string, description: 'property %d', maxLength: 40}\n", p, p)
		}
	}
	return b.String()
}

func TestRead_LargeDocument(t *testing.T) {
	text := largeDocument(5000, 45)
	if len(text) < 8_000_000 {
		t.Fatalf("the document has only %d bytes", len(text))
	}
	start := time.Now()
	operations, faults := Read("api.yaml", from(map[string]string{"api.yaml": text}))
	if len(operations) != 5000 || faults != nil {
		t.Fatalf("%d operations, %v", len(operations), faults)
	}
	t.Logf("%v", time.Since(start))
}

// TestRead_Bombs reads small documents that stand for large ones. Each must end soon, with little memory.
func TestRead_Bombs(t *testing.T) {
	head := "openapi: 3.1.0\npaths: {/a: {get: {operationId: a}}}\n"
	nested := func(first, format, item string, levels int) string {
		var b strings.Builder
		b.WriteString(head + first)
		for i := 1; i < levels; i++ {
			fmt.Fprintf(&b, format, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf(item, i-1), 10), ","))
		}
		return b.String()
	}
	circle := "openapi: 3.1.0\npaths:\n"
	for i := range 3000 {
		circle += fmt.Sprintf("  /p%d: {$ref: '#/paths/~1p%d'}\n", i, (i+1)%3000)
	}
	for name, c := range map[string]struct{ text, fault string }{
		"lists of aliases":  {nested("x-0: &a0 [x]\n", "x-%[1]d: &a%[1]d [%[2]s]\n", "*a%d,", 30), ""},
		"merged mappings":   {nested("x-0: &a0 {k: v}\n", "x-%[1]d: &a%[1]d {<<: [%[2]s]}\n", "*a%d,", 15) + "x-tollkeeper: {<<: *a14}\n", "too large"},
		"deep lists":        {head + "x-a: " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000), ""},
		"too deep":          {head + "x-a: " + strings.Repeat("[", 100_000), "depth"},
		"too deep for JSON": {`{"openapi": "3.1.0", "x-a": ` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}", "depth"},
		"circle":            {circle, "circle"},
		"too large":         {head + "#" + strings.Repeat("x", maxBytes), "too large"},
		"too many routes": {"openapi: 3.1.0\nservers: [{url: '/{a}/{b}', variables: {a: {enum: [1,2,3,4,5,6,7,8,9,10]}, b: {enum: [1,2,3,4,5,6,7,8,9,10]}}}]\n" +
			strings.TrimPrefix(largeDocument(1005, 1), "openapi: 3.1.0\ninfo: {title: Large, version: '1'}\nservers: [{url: https://api.example.com/v1}]\n"), "more than"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		operations, faults := Read("api.yaml", from(map[string]string{"api.yaml": c.text}))
		runtime.ReadMemStats(&after)
		if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 300 {
			t.Errorf("%s: %d MiB", name, mib)
		}
		if c.fault == "" && (len(operations) != 1 || faults != nil) || c.fault != "" && !strings.Contains(fmt.Sprint(faults), c.fault) {
			t.Errorf("%s: %d operations, %.300v", name, len(operations), faults)
		}
	}
}

// TestRead_ManyFiles holds that a chain of files ends.
func TestRead_ManyFiles(t *testing.T) {
	opened := 0
	_, faults := Read("0.yaml", func(name string) ([]byte, bool) {
		opened++
		var n int
		if _, err := fmt.Sscanf(name, "%d.yaml", &n); err != nil {
			return nil, false
		}
		text := "openapi: 3.1.0\npaths:\n"
		if n > 0 {
			text = fmt.Sprintf("$ref: %d.yaml\n", n+1000)
		}
		for i := range 1000 {
			if n == 0 {
				text += fmt.Sprintf("  /p%d: {$ref: %d.yaml}\n", i, i+1)
			}
		}
		return []byte(text), true
	})
	if opened > maxFiles+1001 || !strings.Contains(fmt.Sprint(faults), "too large") {
		t.Errorf("%d files were opened: %.300v", opened, faults)
	}
}

func FuzzRead(f *testing.F) {
	archives, _ := filepath.Glob("testdata/rules/*.txtar")
	for _, name := range archives {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			f.Add(file.Data, []byte("get: {operationId: other, x-tollkeeper: {plans: [a]}}\n"))
		}
	}
	for _, name := range []string{"metering.yaml", "payments.json"} {
		raw, err := os.ReadFile("testdata/documents/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, []byte("{}"))
	}
	f.Fuzz(func(t *testing.T, document, other []byte) {
		files := map[string]string{"api.yaml": string(document), "other.yaml": string(other)}
		start := time.Now()
		operations, faults := Read("api.yaml", from(files))
		if took := time.Since(start); took > 5*time.Second {
			t.Fatalf("it took %v", took)
		}
		if len(operations) > 0 && len(faults) > 0 {
			t.Fatalf("operations and faults: %v", faults)
		}
		for _, e := range operations {
			name, _ := e.Entry["name"].(string)
			match, _ := e.Entry["match"].(map[string]any)
			path, _ := match["path"].(string)
			list, _ := match["methods"].([]any)
			if name == "" || !strings.HasPrefix(path, "/") || len(list) != 1 || e.Line < 1 || files[e.File] == "" {
				t.Fatalf("a bad entry: %+v", e)
			}
			if method, _ := list[0].(string); !slices.Contains(methods, strings.ToLower(method)) {
				t.Fatalf("a bad method: %+v", e)
			}
		}
		for _, fault := range faults {
			if fault.Text == "" || files[fault.File] == "" && fault.Line > 0 {
				t.Fatalf("a bad fault: %+v", fault)
			}
		}
		again, faultsAgain := Read("api.yaml", from(files))
		if !reflect.DeepEqual(operations, again) || !reflect.DeepEqual(faults, faultsAgain) {
			t.Fatalf("read in two ways:\n%s\n%s", show(operations, faults), show(again, faultsAgain))
		}
	})
}

func BenchmarkRead(b *testing.B) {
	text := largeDocument(1000, 3)
	open := from(map[string]string{"api.yaml": text})
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if operations, _ := Read("api.yaml", open); len(operations) != 1000 {
			b.Fatal(len(operations))
		}
	}
}

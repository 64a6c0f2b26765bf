package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

const (
	maxLine       = 1 << 20
	maxShown      = 20
	defaultBatch  = 5000
	maxBatch      = 10_000
	progressEvery = 50_000
	minImported   = 16 // characters of a key that is imported without --force
)

// importLine is one line of an import file: a key by its text or by its hash.
type importLine struct {
	Key string `json:"key"`
	admin.ImportKey
}

// lineFault is why one line cannot be imported.
type lineFault struct {
	Line int    `json:"line"`
	Text string `json:"text"`
}

// numbered is a key with its line number.
type numbered struct {
	line int
	key  admin.ImportKey
}

func (c *cli) importCmd() *cobra.Command {
	var batch int
	var force bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Import existing keys from JSON Lines",
		Long: `Import existing keys, of any form, from a file with one JSON object a line:

  {"key": "…", "account": "acme", "plan": "pro", "name": "ci", "scopes": ["a"],
   "environment": "live", "not_before": "2026-01-01T00:00:00Z", "expires_at": "…", "meta": {}}

Instead of "key", a line may have "sha256", the SHA-256 of the key in hexadecimal. Keys
are hashed here: their text never leaves this machine. Missing accounts are created.

The whole file is read first; if a line is malformed, nothing is imported. Each batch is
imported completely or not at all. Importing a file again changes nothing. - is standard
input.

Keys of fewer than 16 characters can be guessed, and expired keys are useless: both are
refused without --force.`,
		Example: "  tollkeeper key import keys.jsonl\n  tollkeeper key import - < keys.jsonl",
		Args:    args("the file to import, or - for standard input"),
		RunE: func(cmd *cobra.Command, a []string) error {
			if batch < 1 || batch > maxBatch {
				return usagef("--batch %d: want 1 to %d", batch, maxBatch)
			}
			in := cmd.InOrStdin()
			if a[0] != "-" {
				f, err := os.Open(a[0])
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				in = f
			}
			keys, faults, err := readImport(in, force)
			if err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			if len(faults) > 0 {
				return c.importFaults(cmd, admin.ImportResult{}, faults, len(keys)+len(faults))
			}
			return c.sendImport(cmd, keys, batch, force)
		},
	}
	cmd.Flags().IntVar(&batch, "batch", defaultBatch, "keys in a batch, which is imported as a whole or not at all")
	cmd.Flags().BoolVar(&force, "force", false, "import short and expired keys, too")
	return cmd
}

// readImport reads the whole file. Every line is a key, a fault, or empty.
func readImport(in io.Reader, force bool) ([]numbered, []lineFault, error) {
	var keys []numbered
	var faults []lineFault
	seen := make(map[string]int)
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 64<<10), maxLine)
	n := 0
	for s.Scan() {
		n++
		text := bytes.TrimSpace(s.Bytes())
		if n == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
		}
		if len(text) == 0 {
			continue
		}
		k, err := parseImportLine(text, force)
		if err == nil && seen[k.SHA256] > 0 {
			err = fmt.Errorf("the key is the same as on line %d", seen[k.SHA256])
		}
		if err != nil {
			faults = append(faults, lineFault{n, err.Error()})
			continue
		}
		seen[k.SHA256] = n
		keys = append(keys, numbered{n, k})
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		faults = append(faults, lineFault{n + 1, fmt.Sprintf("it is longer than %d bytes", maxLine)})
		return keys, faults, nil
	}
	return keys, faults, s.Err()
}

// parseImportLine reads one line. Its errors never quote the key.
func parseImportLine(text []byte, force bool) (admin.ImportKey, error) {
	var l importLine
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return admin.ImportKey{}, jsonFault(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return admin.ImportKey{}, errors.New("it has more than one JSON value: want one object")
	}
	switch {
	case (l.Key == "") == (l.SHA256 == ""):
		return admin.ImportKey{}, errors.New(`want either "key" or "sha256"`)
	case l.Key != "" && !apikey.WellFormed(l.Key):
		return admin.ImportKey{}, fmt.Errorf(`"key" cannot be sent in a header: want 1 to %d visible characters without spaces and commas, and a checksum if it begins with tk_`, apikey.MaxTextLen)
	case l.Key != "" && len(l.Key) < minImported && !force:
		return admin.ImportKey{}, fmt.Errorf(`"key" has %d characters and can be guessed: want %d or more, or --force`, len(l.Key), minImported)
	case l.Account == "":
		return admin.ImportKey{}, errors.New(`"account" is missing`)
	}
	if l.Key != "" {
		sum := sha256.Sum256([]byte(l.Key))
		l.SHA256 = hex.EncodeToString(sum[:])
	}
	l.SHA256 = strings.ToLower(l.SHA256)
	if raw, err := hex.DecodeString(l.SHA256); err != nil || len(raw) != sha256.Size {
		return admin.ImportKey{}, errors.New(`"sha256": want 64 hexadecimal digits`)
	}
	return l.ImportKey, nil
}

// jsonFault returns an error that does not quote the line, which may have a key.
func jsonFault(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind):
		return fmt.Errorf("%q: want %s", strings.TrimPrefix(kind.Field, "ImportKey."), kind.Type) // the path has the embedded struct
	case errors.As(err, &syntax):
		return fmt.Errorf("it is not JSON, at byte %d", syntax.Offset)
	case strings.HasPrefix(err.Error(), "json: unknown field"):
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it is not JSON: the line ends too early")
	}
	return errors.New("a time is malformed: want one such as 2026-01-01T00:00:00Z")
}

// sendImport imports batch after batch, and stops at the first that is refused.
func (c *cli) sendImport(cmd *cobra.Command, keys []numbered, batch int, force bool) error {
	client, err := c.client(cmd)
	if err != nil {
		return err
	}
	var total admin.ImportResult
	for start := 0; start < len(keys); start += batch {
		part := keys[start:min(start+batch, len(keys))]
		body := struct {
			Keys  []admin.ImportKey `json:"keys"`
			Force bool              `json:"force,omitempty"`
		}{make([]admin.ImportKey, len(part)), force}
		for i := range part {
			body.Keys[i] = part[i].key
		}
		var done admin.ImportResult
		if err := client.Do(cmd.Context(), "POST", admin.Path("keys", "import"), body, &done); err != nil {
			return fmt.Errorf("the import stopped before line %d: %w", part[0].line, err)
		}
		if len(done.Faults) > 0 {
			faults := make([]lineFault, len(done.Faults))
			for i, f := range done.Faults {
				faults[i] = lineFault{part[f.Index].line, f.Text}
			}
			return c.importFaults(cmd, total, faults, len(keys))
		}
		total.Created += done.Created
		total.Unchanged += done.Unchanged
		total.Accounts += done.Accounts
		if n := start + len(part); n%progressEvery < batch && n < len(keys) && c.output == "table" {
			note(cmd, "imported %d of %d keys", n, len(keys))
		}
	}
	return c.show(cmd, total, func(t *table) {
		t.sentence("%d keys imported, %d already present, %d accounts created.", total.Created, total.Unchanged, total.Accounts)
	})
}

// importFaults prints the bad lines, and returns an error that says what was imported before them.
func (c *cli) importFaults(cmd *cobra.Command, done admin.ImportResult, faults []lineFault, lines int) error {
	if c.output == "json" {
		if err := c.show(cmd, map[string]any{"created": done.Created, "unchanged": done.Unchanged, "faults": faults}, nil); err != nil {
			return err
		}
		return errSaid
	}
	w := cmd.ErrOrStderr()
	for _, f := range faults[:min(len(faults), maxShown)] {
		_, _ = fmt.Fprintf(w, "line %d: %s\n", f.Line, f.Text)
	}
	if more := len(faults) - maxShown; more > 0 {
		_, _ = fmt.Fprintf(w, "and %d more\n", more)
	}
	return fmt.Errorf("%d of %d lines cannot be imported, %d keys were imported before: correct the lines and import the file again", len(faults), lines, done.Created)
}

package main

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/server"
)

func (c *cli) serveCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server until it gets SIGINT or SIGTERM. Without a configuration file it uses
the shipped policies, keeps its data in ./data, answers Envoy on 127.0.0.1:9001 and
operators on 127.0.0.1:9002. SIGHUP reloads the policies and reopens the file of the
decision log.

Logs go to standard error and decisions to standard output, as one JSON object per line.`,
		Example: "  tollkeeper serve\n  tollkeeper serve --config tollkeeper.yaml",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("data-dir") {
				cfg.DataDir = c.dataDir
			}
			var level slog.Level
			if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
				return err
			}
			log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			s, err := server.New(cmd.Context(), cfg, buildVersion(), log)
			if err != nil {
				return err
			}
			return s.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", os.Getenv("TOLLKEEPER_CONFIG"), "configuration file")
	return cmd
}

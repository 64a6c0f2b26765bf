-- What the role of the servers may do. It owns nothing, and what is kept for good it cannot delete.
GRANT USAGE ON SCHEMA tollkeeper TO "ROLE";
GRANT SELECT ON tollkeeper.schema_version TO "ROLE";
GRANT SELECT, UPDATE (pepper, revision) ON tollkeeper.installation TO "ROLE";
GRANT SELECT, INSERT, DELETE ON tollkeeper.feed TO "ROLE";
GRANT SELECT, INSERT, UPDATE ON tollkeeper.accounts, tollkeeper.keys TO "ROLE";
GRANT SELECT, INSERT, UPDATE, DELETE ON tollkeeper.revocations TO "ROLE";
GRANT SELECT, INSERT, UPDATE ON tollkeeper.marks TO "ROLE";
GRANT SELECT, INSERT, UPDATE, DELETE ON tollkeeper.holders, tollkeeper.settled TO "ROLE";
GRANT SELECT, INSERT ON tollkeeper.journal TO "ROLE";
GRANT SELECT, UPDATE ON tollkeeper.roll TO "ROLE";

"""The MCP server; the extra `safelight[mcp]` installs its requirements."""

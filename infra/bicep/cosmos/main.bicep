// An account of Azure Cosmos DB for NoSQL that the store accepts: session (or strong) consistency, one write region, no keys; its container,
// and a role that may do exactly what the store does.

@description('Name of the account: 3 to 44 characters, lower case, digits and hyphens.')
param accountName string

@description('Where writes are executed.')
param location string = resourceGroup().location

@description('Regions that are read from besides.')
param readRegions array = []

@description('Session is cheaper; strong charges reads double.')
@allowed(['Session', 'Strong'])
param consistency string = 'Session'

param databaseName string = 'tollgate'
param containerName string = 'tollgate'

@description('Paths of the partition key: more than one make it hierarchical.')
param partitionKeyPaths array = ['/pk']

@description('Most request units a second; the container scales between a tenth of it and all of it.')
param maxRequestUnits int = 4000

@description('Object ids of the identities that consume.')
param consumerPrincipalIds array = []

var regions = concat([location], readRegions)

resource account 'Microsoft.DocumentDB/databaseAccounts@2024-05-15' = {
  name: accountName
  location: location
  kind: 'GlobalDocumentDB'
  properties: {
    databaseAccountOfferType: 'Standard'
    consistencyPolicy: { defaultConsistencyLevel: consistency }
    locations: [for (region, priority) in regions: { locationName: region, failoverPriority: priority }]
    // Two write regions could both commit on one version.
    enableMultipleWriteLocations: false
    enableAutomaticFailover: true
    disableLocalAuth: true
    backupPolicy: { type: 'Continuous', continuousModeProperties: { tier: 'Continuous7Days' } }
  }
}

resource database 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2024-05-15' = {
  parent: account
  name: databaseName
  properties: { resource: { id: databaseName } }
}

resource container 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2024-05-15' = {
  parent: database
  name: containerName
  properties: {
    resource: {
      id: containerName
      partitionKey: {
        paths: partitionKeyPaths
        kind: length(partitionKeyPaths) > 1 ? 'MultiHash' : 'Hash'
        version: 2
      }
      // On, without a default: only deduplication records say how long they live.
      defaultTtl: -1
      indexingPolicy: {
        indexingMode: 'consistent'
        includedPaths: [{ path: '/*' }]
        // All that is Tollgate's own lies under one field, and nobody queries it.
        excludedPaths: [{ path: '/tollgate/*' }, { path: '/"_etag"/?' }]
      }
    }
    options: { autoscaleSettings: { maxThroughput: maxRequestUnits } }
  }
}

// What the store does, and no more. Queries are for the sweep and the audit.
resource consumerRole 'Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions@2024-05-15' = {
  parent: account
  name: guid(account.id, 'tollgate-consumer')
  properties: {
    roleName: 'Tollgate consumer'
    type: 'CustomRole'
    assignableScopes: [account.id]
    permissions: [
      {
        dataActions: [
          'Microsoft.DocumentDB/databaseAccounts/readMetadata'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/executeQuery'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/create'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/read'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/replace'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/upsert'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/delete'
        ]
      }
    ]
  }
}

resource consumers 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-05-15' = [
  for principalId in consumerPrincipalIds: {
    parent: account
    name: guid(account.id, principalId, 'tollgate-consumer')
    properties: {
      principalId: principalId
      roleDefinitionId: consumerRole.id
      scope: '${account.id}/dbs/${database.name}/colls/${container.name}'
    }
  }
]

output endpoint string = account.properties.documentEndpoint
